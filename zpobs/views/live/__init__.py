"""The interactive ``zpobs top``: what is seen is a pure function of scene, state and size.

``scene`` is what there is to show, ``state`` what the reader chose, ``keys`` the
one table of keys, ``screens`` makes lines, ``export`` files of them. ``feed``
owns the session's thread, and ``app`` alone knows the terminal library.
"""
