/* SPDX-License-Identifier: MIT */
/*
 * churn: write, overwrite, discard and read single pages of a block device, or of memory of its
 * own, at full speed, and keep books.
 *
 * Everything follows from the seed: which operation comes next, which page it hits and what is
 * written there. The program knows at any time which page is stored and whether it is filled with
 * one repeated word, so that its final report says how many objects a zram device must have
 * allocated, freed and kept. The pages that it uses have to be empty when it begins. Of memory the
 * kernel decides what goes to swap and when, so there the report tells only what was done.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, MAX_KINDS = 64, MIX_WEIGHTS = 5, NS_PER_S = 1000000000 };

enum fill { FILL_ZERO, FILL_SAME, FILL_TEXT, FILL_PART, FILL_MIXED, FILL_ANY, FILL_RANDOM };

/* One entry of --kinds. */
struct kind {
	enum fill fill;
	unsigned int percent; /* of random bytes, FILL_PART only */
	unsigned int weight;
};

/* What is known of one page; serial 0: nothing is stored there. */
struct page {
	uint64_t serial; /* the operation that wrote it, counted from 1 */
	uint32_t place;	 /* where the page stands in the order below */
	uint8_t kind;
};

struct options {
	const char *device;
	uint64_t first;
	uint64_t pages;
	uint64_t operations;
	uint64_t seed;
	uint64_t rate;
	unsigned int mix[MIX_WEIGHTS]; /* write, overwrite, discard, discard of nothing, read */
	struct kind kinds[MAX_KINDS];
	unsigned int kind_count;
	bool memory;
	bool verify;
	bool hold;
	bool json;
};

struct counts {
	uint64_t operations;
	uint64_t writes;
	uint64_t overwrites;
	uint64_t discards;
	uint64_t discards_missed;
	uint64_t reads;
	uint64_t same_filled_writes;
	uint64_t zs_malloc;
	uint64_t zs_free;
	uint64_t stored;
	uint64_t same_filled_stored;
	uint64_t verified;
};

static struct options opt;
static struct counts count;
static struct page *table;
static uint32_t *order; /* the stored pages first, then the others */
static size_t page_size;
static unsigned char *buffer, *expected;
static int device;
static unsigned char *memory; /* instead of the device, if not NULL */
static volatile sig_atomic_t stopped_by;

static void die(int status, const char *what, const char *about)
{
	fprintf(stderr, "churn: %s%s%s\n", what, about ? ": " : "", about ? about : "");
	exit(status);
}

static void die_errno(const char *what)
{
	die(EXIT_FAILURE, what, strerror(errno));
}

static void stop(int signum)
{
	stopped_by = signum;
}

/* A counter put through a mixing function: as good as any here, and the same everywhere. */
static uint64_t next(uint64_t *state)
{
	uint64_t mixed = *state += 0x9e3779b97f4a7c15;

	mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
	mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
	return mixed ^ (mixed >> 31);
}

static uint64_t below(uint64_t *state, uint64_t limit)
{
	return (unsigned __int128)next(state) * limit >> 64;
}

static bool is_same_filled(unsigned int kind)
{
	return opt.kinds[kind].fill == FILL_ZERO || opt.kinds[kind].fill == FILL_SAME;
}

static void fill_random(unsigned char *page, size_t length, uint64_t *state)
{
	for (size_t at = 0; at < length; at += sizeof(uint64_t)) {
		uint64_t word = next(state);
		size_t left = length - at;

		memcpy(page + at, &word, left < sizeof(word) ? left : sizeof(word));
	}
}

static void fill_text(unsigned char *page, uint64_t *state)
{
	static const char *const words[] = {
		"page",	  "memory", "of",   "the",  "cache", "a",     "swap",  "slot",
		"object", "class",  "size", "zone", "and",   "block", "index", "in",
		"is",	  "pool",   "list", "free", "used",  "to",    "node",  "handle",
	};
	size_t at = 0;

	while (at < page_size) {
		const char *word = words[below(state, sizeof(words) / sizeof(words[0]))];
		size_t length = strlen(word);

		if (length > page_size - at)
			length = page_size - at;
		memcpy(page + at, word, length);
		at += length;
		if (at < page_size)
			page[at++] = below(state, 12) ? ' ' : '\n';
	}
}

/* Random bytes first and one repeated byte after them, which compresses to nearly nothing. */
static void fill_part(unsigned char *page, size_t length, uint64_t *state)
{
	memset(page, (int)(1 + below(state, 255)), page_size);
	fill_random(page, length, state);
}

/*
 * Zeros, with random bytes in two stretches and one odd byte: of any length, so that any size class
 * can be hit. Two, since LZO sees where one ends the less exactly the longer it was.
 */
static void fill_any(unsigned char *page, uint64_t *state)
{
	size_t limit = below(state, 2) ? (size_t)64 << below(state, 6) : page_size;
	size_t length = below(state, limit), first = below(state, length + 1);

	memset(page, 0, page_size);
	fill_random(page, first, state);
	fill_random(page + page_size / 2,
		    (length - first) < page_size / 2 ? length - first : page_size / 2, state);
	page[page_size - 1] ^= 0x55;
}

/* The contents follow from the seed, the page and the operation, so that they can be had again. */
static void generate(unsigned char *page, uint32_t number, uint64_t serial, unsigned int kind)
{
	uint64_t state = opt.seed ^ (serial << 24) ^ number;
	uint64_t word;

	next(&state);
	switch (opt.kinds[kind].fill) {
	case FILL_ZERO:
		memset(page, 0, page_size);
		break;
	case FILL_SAME:
		word = next(&state) | 1;
		for (size_t at = 0; at < page_size; at += sizeof(word))
			memcpy(page + at, &word, sizeof(word));
		break;
	case FILL_TEXT:
		fill_text(page, &state);
		break;
	case FILL_PART:
		fill_part(page, page_size * opt.kinds[kind].percent / 100, &state);
		break;
	case FILL_MIXED:
		fill_part(page, page_size * (1 + below(&state, 99)) / 100, &state);
		break;
	case FILL_ANY:
		fill_any(page, &state);
		break;
	case FILL_RANDOM:
		fill_random(page, page_size, &state);
		break;
	}
}

/* Where a page lies on the device. */
static off_t place_of(uint32_t number)
{
	return (off_t)((opt.first + number) * page_size);
}

static void store(uint32_t number)
{
	ssize_t done;

	if (memory) {
		memcpy(memory + number * page_size, buffer, page_size);
		return;
	}
	done = pwrite(device, buffer, page_size, place_of(number));
	if (done < 0)
		die_errno("cannot write a page");
	if ((size_t)done != page_size)
		die(EXIT_FAILURE, "a page was written only in part", NULL);
}

static void drop(uint32_t number)
{
	uint64_t range[2] = {(uint64_t)place_of(number), page_size};

	if (memory ? madvise(memory + number * page_size, page_size, MADV_DONTNEED)
		   : ioctl(device, BLKDISCARD, range))
		die_errno("cannot discard a page");
}

/* Read a page back and compare; one that is not stored reads as zeros. */
static void check(uint32_t number)
{
	const unsigned char *found = memory ? memory + number * page_size : buffer;
	struct page *page = &table[number];
	ssize_t done = (ssize_t)page_size;
	char about[64];

	if (!memory)
		done = pread(device, buffer, page_size, place_of(number));
	if (done < 0)
		die_errno("cannot read a page back");
	if (page->serial)
		generate(expected, number, page->serial, page->kind);
	else
		memset(expected, 0, page_size);
	if ((size_t)done != page_size || memcmp(found, expected, page_size)) {
		snprintf(about, sizeof(about), "page %" PRIu32, number);
		die(EXIT_FAILURE, "what was read back differs", about);
	}
}

static unsigned int draw(const unsigned int *weights, unsigned int number, uint64_t *state)
{
	uint64_t total = 0, at;
	unsigned int each;

	for (each = 0; each < number; each++)
		total += weights[each];
	at = below(state, total);
	for (each = 0; at >= weights[each]; each++)
		at -= weights[each];
	return each;
}

/* Move a page to the place just behind, or the last of, the stored ones. */
static void swap_places(uint32_t number, uint32_t place)
{
	uint32_t other = order[place], old = table[number].place;

	order[old] = other;
	table[other].place = old;
	order[place] = number;
	table[number].place = place;
}

/* Take what was stored in a page out of the books. */
static void forget(struct page *page)
{
	if (is_same_filled(page->kind))
		count.same_filled_stored--;
	else
		count.zs_free++;
}

static void write_page(uint32_t number, uint64_t *state)
{
	unsigned int weights[MAX_KINDS], kind;
	struct page *page = &table[number];

	for (kind = 0; kind < opt.kind_count; kind++)
		weights[kind] = opt.kinds[kind].weight;
	kind = draw(weights, opt.kind_count, state);
	generate(buffer, number, count.operations, kind);
	store(number);

	if (page->serial) {
		count.overwrites++;
		forget(page);
	} else {
		count.writes++;
		swap_places(number, (uint32_t)count.stored++);
	}
	page->serial = count.operations;
	page->kind = (uint8_t)kind;
	if (is_same_filled(kind)) {
		count.same_filled_writes++;
		count.same_filled_stored++;
	} else {
		count.zs_malloc++;
	}
}

static void discard_page(uint32_t number)
{
	struct page *page = &table[number];

	drop(number);
	if (!page->serial) {
		count.discards_missed++;
		return;
	}
	count.discards++;
	forget(page);
	page->serial = 0;
	swap_places(number, (uint32_t)--count.stored);
}

/* Do one operation; one that is not possible now is replaced by one that is. */
static void operate(uint64_t *state)
{
	enum { WRITE, OVERWRITE, DISCARD, MISS, READ } what = draw(opt.mix, MIX_WEIGHTS, state);
	uint64_t unused = opt.pages - count.stored;

	if (!count.stored && (what == OVERWRITE || what == DISCARD || what == READ))
		what = WRITE;
	else if (!unused && (what == WRITE || what == MISS))
		what = OVERWRITE;

	count.operations++;
	switch (what) {
	case WRITE:
		write_page(order[count.stored + below(state, unused)], state);
		break;
	case OVERWRITE:
		write_page(order[below(state, count.stored)], state);
		break;
	case DISCARD:
		discard_page(order[below(state, count.stored)]);
		break;
	case MISS:
		discard_page(order[count.stored + below(state, unused)]);
		break;
	case READ:
		check(order[below(state, count.stored)]);
		count.reads++;
		break;
	}
}

static void wait_for_turn(const struct timespec *begun)
{
	uint64_t whole = count.operations / opt.rate;
	uint64_t part = count.operations % opt.rate * NS_PER_S / opt.rate;
	struct timespec due = *begun;

	due.tv_sec += (time_t)whole;
	due.tv_nsec += (long)part;
	if (due.tv_nsec >= NS_PER_S) {
		due.tv_sec++;
		due.tv_nsec -= NS_PER_S;
	}
	while (!stopped_by && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
		;
}

static void verify(void)
{
	for (uint64_t number = 0; number < opt.pages; number++) {
		/* Memory that is not stored would come to be by being read. */
		if (memory && !table[number].serial)
			continue;
		check((uint32_t)number);
		count.verified += table[number].serial != 0;
	}
}

static void report(double seconds)
{
	const struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{"seed", opt.seed},
		{"page_size", page_size},
		{"pages", opt.pages},
		{"operations", count.operations},
		{"writes", count.writes},
		{"overwrites", count.overwrites},
		{"discards", count.discards},
		{"discards_missed", count.discards_missed},
		{"reads", count.reads},
		{"same_filled_writes", count.same_filled_writes},
		{"pages_stored", count.stored},
		{"same_filled_stored", count.same_filled_stored},
		/* What follows is only known of a device. */
		{"zs_malloc", count.zs_malloc},
		{"zs_free", count.zs_free},
		{"live_objects", count.stored - count.same_filled_stored},
	};
	size_t known_rows = sizeof(rows) / sizeof(rows[0]) - (memory ? 3 : 0);

	if (!opt.json)
		fprintf(stderr, "churn: %" PRIu64 " operations in %.2f s\n", count.operations,
			seconds);
	printf("{");
	for (size_t row = 0; row < known_rows; row++)
		printf("\"%s\": %" PRIu64 ", ", rows[row].name, rows[row].value);
	if (opt.verify)
		printf("\"verified\": %" PRIu64 ", ", count.verified);
	printf("\"seconds\": %.6f}\n", seconds);
	if (fflush(stdout) || ferror(stdout))
		die_errno("cannot write the report");
}

static void usage(FILE *stream)
{
	fputs("usage: churn {--device DEVICE | --memory} --pages N --operations N [options]\n"
	      "  --device DEVICE   an empty block device, such as /dev/zram0\n"
	      "  --memory          memory of this process instead, which the kernel may swap out\n"
	      "  --pages N         use N pages of it\n"
	      "  --first N         of a device: beginning with page N; default 0\n"
	      "  --operations N    how many operations to do\n"
	      "  --seed S          default 1; the same seed does the same again\n"
	      "  --mix W:O:D[:M[:R]]\n"
	      "                    weights of write, overwrite, discard, discard of a page that\n"
	      "                    is not stored, and read; default 50:30:20:0:0\n"
	      "  --kinds LIST      contents, KIND[:WEIGHT],...: zero, same (one word repeated),\n"
	      "                    text, r1 to r99 (so many percent of random bytes), mixed (r1\n"
	      "                    to r99 at random), any (any number of random bytes, small\n"
	      "                    ones more often), random; default zero:5,same:5,text:20,\n"
	      "                    mixed:60,random:10\n"
	      "  --rate N          at most N operations a second; default 0, full speed\n"
	      "  --verify          read everything back in the end and compare\n"
	      "  --hold            after the report keep everything until standard input ends\n"
	      "  --json            no summary on stderr\n"
	      "The report is one JSON object on stdout. Status: 0 done, 1 failed, 2 wrong usage,\n"
	      "128+N stopped by signal N after a report of what was done.\n",
	      stream);
}

static uint64_t number_of(const char *text, const char *option)
{
	char *end;
	uint64_t number;

	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno || *end || end == text || *text == '-')
		die(EXIT_USAGE, option, "not a number");
	return number;
}

static void parse_mix(char *text)
{
	unsigned int at = 0;
	uint64_t weight, total = 0;
	char *word;

	memset(opt.mix, 0, sizeof(opt.mix));
	while ((word = strsep(&text, ":"))) {
		weight = number_of(word, "--mix");
		if (at == MIX_WEIGHTS || weight > 1000000)
			die(EXIT_USAGE, "--mix", "not W:O:D, W:O:D:M or W:O:D:M:R");
		opt.mix[at++] = (unsigned int)weight;
		total += weight;
	}
	if (at < 3 || !total)
		die(EXIT_USAGE, "--mix", "not W:O:D, W:O:D:M or W:O:D:M:R");
}

static void parse_kind(char *word, struct kind *kind)
{
	static const char *const names[] = {
		[FILL_ZERO] = "zero",	[FILL_SAME] = "same", [FILL_TEXT] = "text",
		[FILL_MIXED] = "mixed", [FILL_ANY] = "any",   [FILL_RANDOM] = "random",
	};
	char *name = strsep(&word, ":");
	uint64_t number = word ? number_of(word, "--kinds") : 1;

	if (!number || number > 1000000)
		die(EXIT_USAGE, "--kinds", "a weight is 1 to 1000000");
	kind->weight = (unsigned int)number;
	for (unsigned int each = 0; each < sizeof(names) / sizeof(names[0]); each++) {
		if (names[each] && !strcmp(name, names[each])) {
			kind->fill = (enum fill)each;
			return;
		}
	}
	if (*name != 'r' || name[1] < '0' || name[1] > '9')
		die(EXIT_USAGE, "--kinds: no such kind", name);
	number = number_of(name + 1, "--kinds");
	if (!number || number > 99)
		die(EXIT_USAGE, "--kinds", "r1 to r99 there are");
	kind->fill = FILL_PART;
	kind->percent = (unsigned int)number;
}

static void parse_kinds(char *text)
{
	char *word;

	opt.kind_count = 0;
	while ((word = strsep(&text, ","))) {
		if (opt.kind_count == MAX_KINDS)
			die(EXIT_USAGE, "--kinds", "too many");
		parse_kind(word, &opt.kinds[opt.kind_count++]);
	}
}

static const struct option known[] = {
	{"device", required_argument, NULL, 'd'}, {"pages", required_argument, NULL, 'p'},
	{"first", required_argument, NULL, 'f'},  {"operations", required_argument, NULL, 'o'},
	{"seed", required_argument, NULL, 's'},	  {"mix", required_argument, NULL, 'm'},
	{"kinds", required_argument, NULL, 'k'},  {"rate", required_argument, NULL, 'r'},
	{"memory", no_argument, NULL, 'a'},	  {"hold", no_argument, NULL, 'l'},
	{"verify", no_argument, NULL, 'v'},	  {"json", no_argument, NULL, 'j'},
	{"help", no_argument, NULL, 'h'},	  {NULL, 0, NULL, 0},
};

static void parse_options(int argc, char **argv)
{
	int found;

	while ((found = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (found) {
		case 'd':
			opt.device = optarg;
			break;
		case 'p':
			opt.pages = number_of(optarg, "--pages");
			break;
		case 'f':
			opt.first = number_of(optarg, "--first");
			break;
		case 'o':
			opt.operations = number_of(optarg, "--operations");
			break;
		case 's':
			opt.seed = number_of(optarg, "--seed");
			break;
		case 'm':
			parse_mix(optarg);
			break;
		case 'k':
			parse_kinds(optarg);
			break;
		case 'r':
			opt.rate = number_of(optarg, "--rate");
			break;
		case 'a':
			opt.memory = true;
			break;
		case 'l':
			opt.hold = true;
			break;
		case 'v':
			opt.verify = true;
			break;
		case 'j':
			opt.json = true;
			break;
		case 'h':
			usage(stdout);
			exit(EXIT_SUCCESS);
		default:
			exit(EXIT_USAGE);
		}
	}
	if (optind < argc)
		die(EXIT_USAGE, "what is this", argv[optind]);
	if (!opt.device == !opt.memory)
		die(EXIT_USAGE, "either --device or --memory is needed; see --help", NULL);
	if (!opt.pages || !opt.operations || opt.pages > UINT32_MAX)
		die(EXIT_USAGE, "--pages and --operations are needed; see --help", NULL);
}

static void open_device(void)
{
	struct stat about;
	uint64_t size;

	device = open(opt.device, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (device < 0)
		die_errno(opt.device);
	if (fstat(device, &about) < 0)
		die_errno(opt.device);
	if (!S_ISBLK(about.st_mode))
		die(EXIT_FAILURE, opt.device, "not a block device");
	if (ioctl(device, BLKGETSIZE64, &size) < 0)
		die_errno(opt.device);
	if (size / page_size < opt.first || size / page_size - opt.first < opt.pages)
		die(EXIT_FAILURE, opt.device, "has not so many pages");
}

/* Single pages, as they would come from a device: no huge ones. */
static void map_memory(void)
{
	memory = mmap(NULL, opt.pages * page_size, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		die_errno("cannot map so much memory");
	if (madvise(memory, opt.pages * page_size, MADV_NOHUGEPAGE) && errno != EINVAL)
		die_errno("cannot refuse huge pages");
}

static void prepare(void)
{
	struct sigaction action = {.sa_handler = stop};

	page_size = (size_t)sysconf(_SC_PAGESIZE);
	table = calloc(opt.pages, sizeof(*table));
	order = calloc(opt.pages, sizeof(*order));
	buffer = aligned_alloc(page_size, page_size);
	expected = aligned_alloc(page_size, page_size);
	if (!table || !order || !buffer || !expected)
		die(EXIT_FAILURE, "not enough memory for so many pages", NULL);
	for (uint32_t number = 0; number < opt.pages; number++) {
		table[number].place = number;
		order[number] = number;
	}
	if (sigaction(SIGINT, &action, NULL) < 0 || sigaction(SIGTERM, &action, NULL) < 0)
		die_errno("cannot catch signals");
	if (opt.memory)
		map_memory();
	else
		open_device();
}

int main(int argc, char **argv)
{
	char kinds[] = "zero:5,same:5,text:20,mixed:60,random:10";
	char mix[] = "50:30:20";
	struct timespec begun, ended;
	uint64_t state;

	opt.seed = 1;
	parse_mix(mix);
	parse_kinds(kinds);
	parse_options(argc, argv);
	prepare();
	state = opt.seed;
	clock_gettime(CLOCK_MONOTONIC, &begun);
	while (count.operations < opt.operations && !stopped_by) {
		operate(&state);
		if (opt.rate)
			wait_for_turn(&begun);
	}
	clock_gettime(CLOCK_MONOTONIC, &ended);
	if (opt.verify && !stopped_by)
		verify();
	report((double)(ended.tv_sec - begun.tv_sec) +
	       (double)(ended.tv_nsec - begun.tv_nsec) / NS_PER_S);
	while (opt.hold && !stopped_by && read(STDIN_FILENO, buffer, page_size) > 0)
		;
	return stopped_by ? 128 + stopped_by : EXIT_SUCCESS;
}
