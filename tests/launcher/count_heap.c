/*
 * LD_PRELOAD: counts what a program asks of the heap, for `scripts/bench --soak`.
 * COUNT_HEAP names a file of at least 16 bytes: calls that allocate (malloc, calloc, realloc, aligned), and frees.
 *   cc -O2 -shared -fPIC -o count_heap.so count_heap.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* glibc's own, under the names that are not taken by ours. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *old);

static _Atomic uint64_t before_the_file[2];
static _Atomic uint64_t *counts = before_the_file;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("COUNT_HEAP");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *shared = mmap(NULL, 2 * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared != MAP_FAILED) counts = shared;
}

static void count(int which) { atomic_fetch_add_explicit(&counts[which], 1, memory_order_relaxed); }

void *malloc(size_t size) { count(0); return __libc_malloc(size); }
void *calloc(size_t number, size_t size) { count(0); return __libc_calloc(number, size); }
void *realloc(void *old, size_t size) { count(0); return __libc_realloc(old, size); }
void *aligned_alloc(size_t alignment, size_t size) { count(0); return __libc_memalign(alignment, size); }
void *memalign(size_t alignment, size_t size) { count(0); return __libc_memalign(alignment, size); }
int posix_memalign(void **out, size_t alignment, size_t size) {
    count(0);
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : ENOMEM;
}
void free(void *old) { if (old) count(1); __libc_free(old); }
