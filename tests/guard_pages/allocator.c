/* An allocator for NumPy (NEP 49) that puts each array beside a page without access rights.

   What reads or writes beyond the end of an array, or in the other mode before its start, ends the process there.
   A mapping is [header page][array][guard page], or [header page][guard page][array]. */

#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    void *context;
    void *(*malloc)(void *context, size_t size);
    void *(*calloc)(void *context, size_t count, size_t size);
    void *(*realloc)(void *context, void *array, size_t size);
    void (*free)(void *context, void *array, size_t size);
} Allocator;

typedef struct { /* PyDataMem_Handler in NumPy's C API */
    char name[127];
    uint8_t version;
    Allocator allocator;
} Handler;

static size_t page;
static int guard_is_first;

static size_t whole_pages(size_t size) { return (size + page - 1) / page * page; }

static char *mapping_of(void *array) {
    uintptr_t address = (uintptr_t)array;
    return (char *)(guard_is_first ? address - 2 * page : address / page * page - page);
}

static size_t size_of(void *array) { return *(size_t *)mapping_of(array); }

static void *guarded_malloc(void *context, size_t size) {
    (void)context;
    size = size ? size : 1;
    size_t room = whole_pages(size);
    char *mapping = mmap(NULL, room + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) return NULL;
    *(size_t *)mapping = size;
    mprotect(mapping + page + (guard_is_first ? 0 : room), page, PROT_NONE);
    return mapping + (guard_is_first ? 2 * page : page + room - size);
}

static void *guarded_calloc(void *context, size_t count, size_t size) {
    return guarded_malloc(context, count * size); /* a new mapping holds zeros */
}

static void guarded_free(void *context, void *array, size_t size) {
    (void)context, (void)size;
    if (array) munmap(mapping_of(array), whole_pages(size_of(array)) + 2 * page);
}

static void *guarded_realloc(void *context, void *array, size_t size) {
    void *moved = guarded_malloc(context, size);
    if (!array || !moved) return moved;
    memcpy(moved, array, size < size_of(array) ? size : size_of(array));
    guarded_free(context, array, 0);
    return moved;
}

Handler *guarded_handler(int guard_first) {
    static Handler handler = {
        "guard pages", 1, {NULL, guarded_malloc, guarded_calloc, guarded_realloc, guarded_free}};
    page = (size_t)sysconf(_SC_PAGESIZE);
    guard_is_first = guard_first;
    return &handler;
}
