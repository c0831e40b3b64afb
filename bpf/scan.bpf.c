/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The scanner: walks a pool's size classes, fullness lists, zspages and page
 * chains, and tells them as the probes do (zs_wire.h). It needs no probe.
 *
 * The programs are of the syscall kind: user space runs them, in its own
 * thread, through BPF_PROG_TEST_RUN. They share two mapped arrays with it: the
 * control words (ZS_ASK_x, ZS_ANSWER_x) and the buffer of records. A run ends
 * when the buffer is full; the next goes on where it ended, so that no pool is
 * too large and no run long.
 *
 * No lock is taken. A step of the walk believes a zspage only if it has the
 * magic, the pool, the class and the group of the list that led to it, and
 * points back to where the walk came from; else the list is walked again.
 *
 * The records of a zspage have the time at which the walk of its class began:
 * whatever a probe tells of later is newer than what is told here, and if the
 * zspage has died meanwhile, its death is.
 */
#include "zs_core.h"
#include "zs_wire.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define ZSPAGE_MAGIC 0x58
#define LIST_ATTEMPTS 8
#define GROUPS_MAX 16
#define LIST_GAIN_MAX (1 << 20)
/* Records that one zspage can need: its state, frames, links and descriptors. */
#define STEP_WORDS ((2 + ZS_CHAIN_MAX / ZS_FRAMES_PER_RECORD + ZS_CHAIN_MAX) * ZS_RECORD_WORDS)
/* More steps than records fit, so that it is the buffer that ends a run. */
#define STEPS_PER_RUN (1 << 20)
#define FREE_LIST_MAX 4096
#define SHRINKERS_MAX (1 << 16)
#define XARRAY_LEVELS_MAX 8
#define GIB (1ULL << 30)
#define DIRECT_MAP_GIB_MAX (1 << 17)

u64 control[ZS_CONTROL_WORDS] SEC(".bss.control");
u64 records[ZS_SCAN_WORDS] SEC(".bss.records");

enum { AT_CLASS, AT_LIST, AT_ZSPAGE, AT_END };

/* Where a walk stands between two steps and between two runs. */
struct {
	u64 phase;
	u64 slot;
	u64 size_class;
	u64 objs_per_zspage;
	u64 pages_per_zspage;
	u64 object_bytes;
	u64 pool_begin_ns;
	u64 class_begin_ns;
	u64 group;
	u64 head;
	u64 node;
	u64 came_from;
	u64 attempts;
	u64 torn;
	u64 zspages;
	u64 objects;
	u64 list_zspages;
	u64 list_objects;
	u64 walked[GROUPS_MAX];
	u64 stats[GROUPS_MAX + 2];
	u64 now[GROUPS_MAX + 2];
	u64 frames[ZS_CHAIN_MAX];
	u64 free_next;
	u64 free_count;
} walk;

struct bytes {
	u64 word[8];
};

static __always_inline u64 groups(void)
{
	return zs_bytes_size_class_lists() / 16;
}

static __always_inline u64 slots(void)
{
	return zs_bytes_zs_pool_size_class() / 8;
}

/* Copy a structure as far as it is known to reach. */
#define COPY(copy, type, at)                                                                       \
	({                                                                                         \
		u32 bytes_ = bpf_core_type_size(type);                                             \
		bpf_probe_read_kernel(copy, bytes_ > sizeof(*(copy)) ? sizeof(*(copy)) : bytes_,   \
				      (const void *)(at));                                         \
	})

/* The barriers keep the number that is checked and the one that is used the same. */
static __always_inline u64 *record_at(u64 words)
{
	barrier_var(words);
	if (words > ZS_SCAN_WORDS - ZS_RECORD_WORDS)
		return 0;
	barrier_var(words);
	return &records[words];
}

/* Where all that one step tells can stand. */
static __always_inline u64 *step_room(void)
{
	u64 words = control[ZS_ANSWER_WORDS];

	barrier_var(words);
	if (words > ZS_SCAN_WORDS - STEP_WORDS)
		return 0;
	barrier_var(words);
	return &records[words];
}

static __always_inline u64 head_word(u64 kind, u64 flags, u64 a, u64 b)
{
	return kind | flags << 8 | a << 16 | b << 24 | control[ZS_ASK_SERIAL] << 32;
}

static __always_inline void tell(u64 head, u64 time_ns, u64 subject, u64 third, u64 fourth,
				 u64 fifth, u64 sixth)
{
	u64 *record = record_at(control[ZS_ANSWER_WORDS]);

	if (!record)
		return;
	record[0] = head;
	record[1] = time_ns;
	record[2] = subject;
	record[3] = third;
	record[4] = fourth;
	record[5] = fifth;
	record[6] = sixth;
	control[ZS_ANSWER_WORDS] += ZS_RECORD_WORDS;
}

static __always_inline u64 pool_class(u64 slot)
{
	u64 size_class = 0;

	bpf_probe_read_kernel(
		&size_class, sizeof(size_class),
		(const void *)(control[ZS_ASK_POOL] + zs_at_zs_pool_size_class() + slot * 8));
	return size_class;
}

static __always_inline void stats_read(u64 *stats)
{
	u32 bytes = (groups() + 2) * sizeof(u64);

	if (bytes > sizeof(walk.stats))
		bytes = sizeof(walk.stats);
	bpf_probe_read_kernel(stats, bytes,
			      (const void *)(walk.size_class + zs_at_size_class_stats()));
}

static __always_inline u64 stat_of(const u64 *stats, u64 which)
{
	return which < GROUPS_MAX + 2 ? stats[which] : 0;
}

/* ---- a class ---------------------------------------------------------------- */

static __always_inline void class_begin(void)
{
	u64 time_ns = bpf_ktime_get_ns();
	u64 size_class = pool_class(walk.slot);

	/* Slots that share a class point to the largest of them. */
	if (!size_class || zs_read(size_class_index, size_class) != walk.slot) {
		walk.slot++;
		return;
	}
	walk.size_class = size_class;
	walk.class_begin_ns = time_ns;
	walk.object_bytes = zs_read(size_class_size, size_class);
	walk.objs_per_zspage = zs_read(size_class_objs_per_zspage, size_class);
	walk.pages_per_zspage = zs_read(size_class_pages_per_zspage, size_class);
	walk.torn = 0;
	walk.zspages = 0;
	walk.objects = 0;
	walk.group = 0;
	walk.attempts = 0;
	stats_read(walk.stats);
	tell(head_word(ZS_KIND_SCAN_BEGIN, 0, 0, 0), time_ns, control[ZS_ASK_POOL], walk.slot,
	     walk.object_bytes | walk.objs_per_zspage << 32 | walk.pages_per_zspage << 48,
	     stat_of(walk.stats, groups()), stat_of(walk.stats, groups() + 1));
	walk.phase = AT_LIST;
}

static __always_inline int class_steady(const u64 *now)
{
	u64 group;

	if (walk.torn)
		return 0;
	for (group = 0; group < GROUPS_MAX; group++) {
		if (group >= groups())
			break;
		if (now[group] != walk.stats[group] || now[group] != walk.walked[group])
			return 0;
	}
	for (group = 0; group < 2; group++) {
		if (stat_of(now, groups() + group) != stat_of(walk.stats, groups() + group))
			return 0;
	}
	return walk.zspages * walk.objs_per_zspage == stat_of(now, groups()) &&
	       walk.objects == stat_of(now, groups() + 1);
}

static __always_inline void class_end(void)
{
	stats_read(walk.now);
	tell(head_word(ZS_KIND_SCAN_END, class_steady(walk.now) ? ZS_FLAG_STEADY : 0, 0, 0),
	     bpf_ktime_get_ns(), control[ZS_ASK_POOL], walk.slot, walk.class_begin_ns,
	     stat_of(walk.now, groups()), stat_of(walk.now, groups() + 1));
	walk.slot++;
	walk.phase = AT_CLASS;
}

static __always_inline void list_begin(void)
{
	walk.head = walk.size_class + zs_at_size_class_lists() + walk.group * 16;
	walk.list_zspages = 0;
	walk.list_objects = 0;
	walk.came_from = walk.head;
	walk.node = 0;
	bpf_probe_read_kernel(&walk.node, sizeof(walk.node), (const void *)walk.head);
	walk.phase = AT_ZSPAGE;
}

static __always_inline void list_end(void)
{
	if (walk.group < GROUPS_MAX)
		walk.walked[walk.group] = walk.list_zspages;
	walk.zspages += walk.list_zspages;
	walk.objects += walk.list_objects;
	walk.group++;
	walk.attempts = 0;
	walk.phase = walk.group < groups() ? AT_LIST : AT_END;
}

/* ---- a zspage --------------------------------------------------------------- */

/* The links of a free list lie in the free chunks themselves: index << 1, lowest bit clear. */
static long free_step(u64 number, void *unused)
{
	u64 at = walk.free_next * walk.object_bytes;
	u64 page = at >> 12, link = 0;

	if (walk.free_next >= walk.objs_per_zspage)
		return 1;
	if (page >= ZS_CHAIN_MAX)
		return 1;
	if (bpf_probe_read_kernel(&link, sizeof(link),
				  (const void *)(control[ZS_ASK_DIRECT_MAP] +
						 (walk.frames[page & (ZS_CHAIN_MAX - 1)] << 12) +
						 (at & 4095))) ||
	    link & 1) {
		walk.free_count = ZS_UNKNOWN;
		return 1;
	}
	walk.free_count++;
	walk.free_next = (link >> 1) & 0xffffffff;
	return 0;
}

/* A huge zspage has no chunk heads; without its map the content cannot be read. */
static __always_inline u64 free_list_length(const struct bytes *zspage)
{
	if (!control[ZS_ASK_DIRECT_MAP] || zs_get_zspage_huge(zspage))
		return ZS_UNKNOWN;
	walk.free_next = zs_get_zspage_freeobj(zspage);
	walk.free_count = 0;
	bpf_loop(FREE_LIST_MAX, free_step, 0, 0);
	return walk.free_count;
}

static __always_inline u64 lock_word(const struct bytes *zspage)
{
	u32 word = *(u32 *)((const char *)zspage + (zs_at_zspage_lock() & 63 & ~3ULL));

	/* The holders of a lock that counts them; of a rwlock its own word. */
	if (zs_has_zspage_lock_holders())
		word = *(u32 *)((const char *)zspage +
				((zs_at_zspage_lock() + zs_at_zspage_lock_holders()) & 60));
	return word;
}

static __always_inline void links_told(const struct bytes *zspage, u64 address, u64 flags,
				       u64 links, u64 free)
{
	tell(head_word(ZS_DETAIL_LINKS, flags, zs_get_zspage_fullness(zspage),
		       walk.pages_per_zspage),
	     walk.class_begin_ns, address, zs_get_zspage_magic(zspage) | lock_word(zspage) << 32,
	     zs_get_zspage_first(zspage), free, walk.group | links << 8);
}

/* The list changed under the walk: begin it again, and in the end leave it. */
static __always_inline void list_torn(const struct bytes *zspage, u64 address, u64 links)
{
	if (++walk.attempts < LIST_ATTEMPTS) {
		walk.phase = AT_LIST;
		return;
	}
	walk.torn++;
	if (control[ZS_ASK_DETAIL])
		links_told(zspage, address, ZS_FLAG_TORN, links, ZS_UNKNOWN);
	list_end();
}

/* As far as the last member that every visit needs. */
static __always_inline void descriptor_read(struct bytes *copy, u64 zpdesc)
{
	u32 bytes = zs_at_zpdesc_zspage() + 8;

	bpf_probe_read_kernel(copy, bytes > sizeof(*copy) ? sizeof(*copy) : bytes,
			      (const void *)zpdesc);
}

static __always_inline u64 frame_of(u64 zpdesc)
{
	u64 distance = zpdesc - control[ZS_ASK_VMEMMAP];
	u32 bytes = bpf_core_type_size(struct page___size);

	/* A division by a number that is not known when this is compiled is a slow one. */
	return bytes == 64 ? distance >> 6 : distance / bytes;
}

/*
 * Loops over a chain are written out, so that each page's record has a fixed
 * place: counting along, the verifier would look at every chain by itself.
 */
#define EACH_PAGE(visit)                                                                           \
	visit(0) visit(1) visit(2) visit(3) visit(4) visit(5) visit(6) visit(7) visit(8) visit(9)  \
		visit(10) visit(11) visit(12) visit(13) visit(14) visit(15)
_Static_assert(ZS_CHAIN_MAX == 16, "EACH_PAGE has another number of pages");

/* Tell one descriptor; return the next one. */
static __always_inline u64 descriptor_told(u64 *record, u64 address, u64 zpdesc, u32 at)
{
	struct bytes page = {};

	COPY(&page, struct page___size, zpdesc);
	record[0] = head_word(ZS_DETAIL_DESCRIPTOR, 0, at, walk.pages_per_zspage);
	record[1] = zs_get_zpdesc_zspage(&page);
	record[2] = address;
	record[3] = zpdesc;
	record[4] = zs_get_zpdesc_flags(&page);
	record[5] = zs_get_zpdesc_next(&page);
	record[6] = zs_get_zpdesc_offset(&page) | zs_get_zpdesc_refcount(&page) << 32;
	return record[5];
}

/* Tell the frame of one page; return whether it belongs to this zspage. */
static __always_inline int frame_told(u64 *record, u64 address, u64 *zpdesc, u32 at,
				      u64 *seen_flags)
{
	struct bytes page = {};

	descriptor_read(&page, *zpdesc);
	if (at % ZS_FRAMES_PER_RECORD == 0) {
		record[0] = head_word(ZS_KIND_FRAMES, 0, at, walk.pages_per_zspage);
		record[1] = walk.class_begin_ns;
		record[2] = address;
		record[4] = record[5] = record[6] = 0;
	}
	record[3 + at % ZS_FRAMES_PER_RECORD] = frame_of(*zpdesc);
	*seen_flags |= zs_get_zpdesc_flags(&page);
	*zpdesc = zs_get_zpdesc_next(&page);
	return zs_get_zpdesc_zspage(&page) == address;
}

/* Not inlined: it is a second walk of the chain, for those who asked. */
static __noinline int detail_told(const struct bytes *zspage, u64 address)
{
	u64 zpdesc, at, *record;

	if (!zspage)
		return 0;
	zpdesc = zs_get_zspage_first(zspage);
	for (at = 0; at < ZS_CHAIN_MAX; at++) {
		if (at >= walk.pages_per_zspage)
			break;
		walk.frames[at] = frame_of(zpdesc);
		zpdesc = zs_read(zpdesc_next, zpdesc);
	}
	links_told(zspage, address, 0, 0, free_list_length(zspage));
	record = step_room();
	if (!record)
		return 0;
	zpdesc = zs_get_zspage_first(zspage);
#define DESCRIPTOR_TOLD(at)                                                                        \
	if (at < walk.pages_per_zspage)                                                            \
		zpdesc = descriptor_told(record + at * ZS_RECORD_WORDS, address, zpdesc, at);
	EACH_PAGE(DESCRIPTOR_TOLD)
	control[ZS_ANSWER_WORDS] += walk.pages_per_zspage * ZS_RECORD_WORDS;
	return 0;
}

static __always_inline void zspage_visit(void)
{
	u64 address = walk.node - zs_at_zspage_list();
	u64 zpdesc, seen_flags = 0, flags = ZS_FLAG_SCANNED, words, links = 0;
	struct bytes zspage = {};
	int ours = 1;
	u64 *state;

	/* More than a list can have gained meanwhile: it leads in circles. */
	if (walk.list_zspages > stat_of(walk.stats, walk.group) + LIST_GAIN_MAX) {
		walk.attempts = LIST_ATTEMPTS;
		list_torn(&zspage, address, links);
		return;
	}
	COPY(&zspage, struct zspage___size, address);
	if (zspage.word[(zs_at_zspage_list() + 8) / 8 & 7] != walk.came_from)
		links |= ZS_LINK_BACK_BROKEN;
	if (zs_get_zspage_pool(&zspage) != control[ZS_ASK_POOL])
		links |= ZS_LINK_FOREIGN;
	if (links || zs_get_zspage_magic(&zspage) != ZSPAGE_MAGIC ||
	    zs_get_zspage_class(&zspage) != walk.slot ||
	    zs_get_zspage_fullness(&zspage) != walk.group) {
		list_torn(&zspage, address, links);
		return;
	}
	state = step_room();
	if (!state)
		return;
	zpdesc = zs_get_zspage_first(&zspage);
#define FRAME_TOLD(at)                                                                             \
	if (at < walk.pages_per_zspage)                                                            \
		ours &= frame_told(state + (1 + at / ZS_FRAMES_PER_RECORD) * ZS_RECORD_WORDS,      \
				   address, &zpdesc, at, &seen_flags);
	EACH_PAGE(FRAME_TOLD)
	if (!ours) {
		list_torn(&zspage, address, links);
		return;
	}
	words = ZS_RECORD_WORDS;
	if (control[ZS_ASK_VMEMMAP])
		words += (walk.pages_per_zspage + ZS_FRAMES_PER_RECORD - 1) / ZS_FRAMES_PER_RECORD *
			 ZS_RECORD_WORDS;
	if (zs_get_zspage_huge(&zspage))
		flags |= ZS_FLAG_HUGE;
	if (seen_flags & control[ZS_ASK_LOCKED_MASK] || lock_word(&zspage))
		flags |= ZS_FLAG_LOCKED;
	if (seen_flags & control[ZS_ASK_ISOLATED_MASK])
		flags |= ZS_FLAG_ISOLATED;
	state[0] = head_word(ZS_KIND_STATE, flags, zs_get_zspage_fullness(&zspage),
			     walk.pages_per_zspage);
	state[1] = walk.class_begin_ns;
	state[2] = address;
	state[3] = zs_get_zspage_inuse(&zspage) | zs_get_zspage_freeobj(&zspage) << 32;
	state[4] = walk.slot;
	state[5] = state[6] = 0;
	control[ZS_ANSWER_WORDS] += words;
	if (control[ZS_ASK_DETAIL])
		detail_told(&zspage, address);
	walk.list_zspages++;
	walk.list_objects += zs_get_zspage_inuse(&zspage);
	walk.came_from = walk.node;
	walk.node = zspage.word[zs_at_zspage_list() / 8 & 7];
}

static long walk_step(u64 number, void *unused)
{
	/* What is told in detail begins behind the rest, and asks for room once more. */
	if (control[ZS_ANSWER_WORDS] > ZS_SCAN_WORDS - 2 * STEP_WORDS)
		return 1;
	switch (walk.phase) {
	case AT_CLASS:
		if (walk.slot > control[ZS_ASK_LAST_CLASS] || walk.slot >= slots()) {
			control[ZS_ANSWER_DONE] = 1;
			return 1;
		}
		class_begin();
		return 0;
	case AT_LIST:
		list_begin();
		return 0;
	case AT_ZSPAGE:
		if (walk.node == walk.head)
			list_end();
		else
			zspage_visit();
		return 0;
	default:
		class_end();
		return 0;
	}
}

static long total_step(u64 slot, void *unused)
{
	u64 size_class = pool_class(slot), objects = 0;

	if (!size_class || zs_read(size_class_index, size_class) != slot)
		return 0;
	bpf_probe_read_kernel(&objects, sizeof(objects),
			      (const void *)(size_class + zs_at_size_class_stats() +
					     (groups() + 1) * sizeof(u64)));
	walk.objects += objects;
	return 0;
}

/* The whole pool as it is now: if that is what was told class by class, it was so at one time. */
static __always_inline void pool_told(void)
{
	u64 pool = control[ZS_ASK_POOL];

	walk.objects = 0;
	bpf_loop(slots(), total_step, 0, 0);
	tell(head_word(ZS_KIND_SCANNED, 0, 0, 0), bpf_ktime_get_ns(), pool,
	     zs_read(zs_pool_pages, pool), zs_read(zs_pool_stats, pool), walk.pool_begin_ns,
	     walk.objects);
}

SEC("syscall")
int scan_pool(void *ctx)
{
	control[ZS_ANSWER_WORDS] = 0;
	control[ZS_ANSWER_DONE] = 0;
	if (!control[ZS_ASK_RESUME]) {
		walk.phase = AT_CLASS;
		walk.slot = control[ZS_ASK_FIRST_CLASS];
		walk.pool_begin_ns = bpf_ktime_get_ns();
	}
	bpf_loop(STEPS_PER_RUN, walk_step, 0, 0);
	if (control[ZS_ANSWER_DONE])
		pool_told();
	return 0;
}

/* ---- what can be found through a descriptor of our own ---------------------- */

static __always_inline u64 file_of(u64 fd)
{
	u64 files = zs_read(task_files, bpf_get_current_task());
	u64 table = zs_read(fdtable_fd, zs_read(files_fdt, files));
	u64 file = 0;

	bpf_probe_read_kernel(&file, sizeof(file), (const void *)(table + fd * 8));
	return file;
}

struct {
	u64 start;
	u64 node;
	u64 found;
} shrinkers;

static long shrinker_step(u64 number, void *unused)
{
	u64 shrinker = shrinkers.node - zs_at_shrinker_list();
	u64 *found = record_at(shrinkers.found * ZS_FOUND_WORDS);
	u64 next = 0, pool;

	if (found && zs_read(shrinker_scan, shrinker) == control[ZS_ASK_FUNCTION]) {
		if (zs_has_shrinker_owner())
			pool = zs_read(shrinker_owner, shrinker);
		else
			pool = shrinker - zs_at_zs_pool_shrinker();
		found[0] = pool;
		found[1] = shrinker;
		found[2] = found[3] = found[4] = found[5] = 0;
		bpf_probe_read_kernel_str(&found[2], ZS_NAME_BYTES,
					  (const void *)zs_read(zs_pool_name, pool));
		shrinkers.found++;
	}
	bpf_probe_read_kernel(&next, sizeof(next), (const void *)shrinkers.node);
	shrinkers.node = next;
	if (next == shrinkers.start)
		control[ZS_ANSWER_DONE] = 1;
	return !next || next == shrinkers.start;
}

/*
 * Every pool has a shrinker, and all shrinkers stand in one ring, in which the
 * super block of any open file has its place too. Those that run
 * zs_shrinker_scan() are pools'.
 */
SEC("syscall")
int find_pools(void *ctx)
{
	u64 sb = zs_read(inode_sb, zs_read(file_inode, file_of(control[ZS_ASK_FD])));
	u64 shrinker;

	if (zs_has_sb_shrinker())
		shrinker = zs_read(sb_shrinker, sb);
	else
		shrinker = sb + zs_at_sb_shrinker_embedded();
	shrinkers.start = shrinker + zs_at_shrinker_list();
	shrinkers.node = shrinkers.start;
	shrinkers.found = 0;
	control[ZS_ANSWER_DONE] = 0;
	if (shrinker)
		bpf_loop(SHRINKERS_MAX, shrinker_step, 0, 0);
	control[ZS_ANSWER_WORDS] = shrinkers.found * ZS_FOUND_WORDS;
	return 0;
}

/*
 * The descriptor of the first page of an open file in memory. An xarray with one
 * entry holds just that; a page of a large folio stands below nodes, marked by 2
 * in their lowest bits; a page that is swapped out has left a number there.
 */
SEC("syscall")
int find_descriptor(void *ctx)
{
	u64 mapping = zs_read(file_mapping, file_of(control[ZS_ASK_FD]));
	u64 entry = zs_read(xarray_head, mapping + zs_at_mapping_pages());
	u32 level;

	control[ZS_ANSWER_POINTER] = 0;
	for (level = 0; level < XARRAY_LEVELS_MAX; level++) {
		if ((entry & 3) != 2)
			break;
		entry = zs_read(xa_node_slots, entry - 2);
	}
	if (!(entry & 3) && mapping && zs_read(page_mapping, entry) == mapping)
		control[ZS_ANSWER_POINTER] = entry;
	return 0;
}

u64 direct_map_top;

static long direct_map_step(u64 number, void *unused)
{
	u64 base = direct_map_top - number * GIB, token = 0;

	bpf_probe_read_kernel(&token, sizeof(token),
			      (const void *)(base + (control[ZS_ASK_FRAME] << 12)));
	if (token != control[ZS_ASK_TOKEN])
		return 0;
	control[ZS_ANSWER_POINTER] = base;
	return 1;
}

/*
 * Where the kernel maps all memory: the address, below that of any slab object,
 * at which a page whose frame and content are known can be read.
 */
SEC("syscall")
int find_direct_map(void *ctx)
{
	direct_map_top = file_of(control[ZS_ASK_FD]) & ~(GIB - 1);
	control[ZS_ANSWER_POINTER] = 0;
	bpf_loop(DIRECT_MAP_GIB_MAX, direct_map_step, 0, 0);
	return 0;
}
