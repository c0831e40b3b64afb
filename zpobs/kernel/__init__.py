"""What zpobs knows of kernels: type information, members, hooks, and the plan from them."""
