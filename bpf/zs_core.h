/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * CO-RE access to the members that zs_layout.h lists. Each line becomes a
 * structure of its own with that one member, and functions that libbpf makes
 * constants of when it loads the object:
 *
 *   zs_has_NAME()          whether the kernel has the member
 *   zs_at_NAME()           its place in bytes
 *   zs_get_NAME(copy)      its value in a copy of the structure
 *
 * What follows "___" in a structure's name is ignored where types are matched.
 */
#ifndef ZS_CORE_H
#define ZS_CORE_H

#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;

/* Any structure matches any other, any number any other, any pointer any other. */
struct zs_any {
	u64 word;
};
typedef void *zs_ptr;

#define ZS_DECLARE_u32(member) u32 member
#define ZS_DECLARE_u64(member) u64 member
#define ZS_DECLARE_ptr(member) void *member
#define ZS_DECLARE_record(member) struct zs_any member
#define ZS_DECLARE_atomic(member) struct zs_any member
#define ZS_DECLARE_ptr_array(member) void *member[1]
#define ZS_DECLARE_record_array(member) struct zs_any member[1]
#define ZS_WIDTH_u32 u32
#define ZS_WIDTH_u64 u64
#define ZS_WIDTH_ptr u64
#define ZS_WIDTH_atomic u32
#define ZS_WIDTH_record u64
#define ZS_WIDTH_ptr_array u64
#define ZS_WIDTH_record_array u64

/*
 * A load of a whole number may take its relocation itself, of which libbpf then
 * mends the width. What stands for a larger member must not be mended.
 */
#define ZS_SEPARATE_u32(at)
#define ZS_SEPARATE_u64(at)
#define ZS_SEPARATE_ptr(at)
#define ZS_SEPARATE_atomic(at) barrier_var(at)
#define ZS_SEPARATE_record(at) barrier_var(at)
#define ZS_SEPARATE_ptr_array(at) barrier_var(at)
#define ZS_SEPARATE_record_array(at) barrier_var(at)

#define ZS_GETTER(name, type)                                                                      \
	static __always_inline u64 zs_get_##name(const void *copy)                                 \
	{                                                                                          \
		u64 at = zs_at_##name();                                                           \
                                                                                                   \
		ZS_SEPARATE_##type(at);                                                            \
		return *(const zs_width_##name *)((const char *)copy + at);                        \
	}

#define ZS_FLAVOR(name, structure, type, member)                                                   \
	struct structure##___##name {                                                              \
		ZS_DECLARE_##type(member);                                                         \
	} __attribute__((preserve_access_index));

#define ZS_FIELD(name, structure, type, member)                                                    \
	ZS_FLAVOR(name, structure, type, member)                                                   \
	typedef ZS_WIDTH_##type zs_width_##name;                                                   \
	static __always_inline int zs_has_##name(void)                                             \
	{                                                                                          \
		return bpf_core_field_exists(((struct structure##___##name *)0)->member);          \
	}                                                                                          \
	static __always_inline u64 zs_at_##name(void)                                              \
	{                                                                                          \
		return __builtin_preserve_field_info(((struct structure##___##name *)0)->member,   \
						     BPF_FIELD_BYTE_OFFSET);                       \
	}                                                                                          \
	static __always_inline u64 zs_bytes_##name(void)                                           \
	{                                                                                          \
		return __builtin_preserve_field_info(((struct structure##___##name *)0)->member,   \
						     BPF_FIELD_BYTE_SIZE);                         \
	}                                                                                          \
	ZS_GETTER(name, type)

#define ZS_BITS(name, structure, member)                                                           \
	struct structure##___##name {                                                              \
		u32 member : 1;                                                                    \
	} __attribute__((preserve_access_index));                                                  \
	static __always_inline u64 zs_get_##name(const void *copy)                                 \
	{                                                                                          \
		return BPF_CORE_READ_BITFIELD((const struct structure##___##name *)copy, member);  \
	}

#define ZS_EITHER(name, newer, type, member, older, older_type, older_member)                      \
	ZS_FLAVOR(name##_newer, newer, type, member)                                               \
	ZS_FLAVOR(name##_older, older, older_type, older_member)                                   \
	typedef ZS_WIDTH_##type zs_width_##name;                                                   \
	static __always_inline u64 zs_at_##name(void)                                              \
	{                                                                                          \
		if (bpf_core_field_exists(((struct newer##___##name##_newer *)0)->member))         \
			return __builtin_preserve_field_info(                                      \
				((struct newer##___##name##_newer *)0)->member,                    \
				BPF_FIELD_BYTE_OFFSET);                                            \
		return __builtin_preserve_field_info(                                              \
			((struct older##___##name##_older *)0)->older_member,                      \
			BPF_FIELD_BYTE_OFFSET);                                                    \
	}                                                                                          \
	ZS_GETTER(name, type)

#define ZS_WALK_FIELD ZS_FIELD
#define ZS_WALK_BITS ZS_BITS
#define ZS_WALK_EITHER ZS_EITHER
#define ZS_OWNER_FIELD ZS_FIELD
#define ZS_OWNER_EITHER ZS_EITHER

#include "zs_layout.h"

/* A kernel's member, read from the structure at a kernel address; 0 if it cannot be read. */
#define zs_read(name, base)                                                                        \
	({                                                                                         \
		zs_width_##name value_ = 0;                                                        \
		bpf_probe_read_kernel(&value_, sizeof(value_),                                     \
				      (const void *)((base) + zs_at_##name()));                    \
		(u64) value_;                                                                      \
	})

struct zspage___size {
} __attribute__((preserve_access_index));
struct page___size {
} __attribute__((preserve_access_index));

#endif
