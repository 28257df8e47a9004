/*
 * An allocator that runs out of memory when it is told to. Linked into qwen-gateway-oom, it stands before malloc and
 * its relatives for the whole process: the gateway, libevent, jansson, libyaml, OpenSSL and libc itself. What it hands
 * out comes from the sanitizer's allocator where there is one, so that leaks and overruns are seen as ever.
 *
 * The file that QG_ALLOCATIONS names holds the controls, and is mapped here and in the test. While `threads` is not 0,
 * every allocation of those threads is counted, and those from number `fails_from` up to but not including
 * `fails_until` (the first is 1) get no memory. Any thread may allocate; only the test writes the controls.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { THREADS_CONTROL = 1, THREADS_OTHERS = 2 };

struct controls {
    _Atomic uint64_t threads; /* whose allocations count: THREADS_* */
    _Atomic uint64_t counted;
    _Atomic uint64_t fails_from, fails_until;
    _Atomic uint64_t failed;
    _Atomic uint64_t says; /* not 0: where each failure was goes to stderr */
};

static struct controls *controls;
static _Thread_local unsigned thread; /* THREADS_*; 0: it is still being made, by libc or the sanitizer */

#ifdef __SANITIZE_ADDRESS__
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif
void *REAL(malloc)(size_t bytes);
void *REAL(calloc)(size_t count, size_t bytes);
void *REAL(realloc)(void *at, size_t bytes);
void *REAL(memalign)(size_t alignment, size_t bytes);

#ifdef __SANITIZE_ADDRESS__
void __sanitizer_print_stack_trace(void);
static void say_where(void)
{
    __sanitizer_print_stack_trace();
}
#else
static void say_where(void)
{
}
#endif

__attribute__((constructor)) static void find_controls(void)
{
    const char *file = getenv("QG_ALLOCATIONS");
    int fd = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
    void *at = fd >= 0 ? mmap(NULL, sizeof *controls, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

    if (fd >= 0)
        (void)close(fd);
    if (at == MAP_FAILED) {
        static const char why[] = "qwen-gateway-oom: QG_ALLOCATIONS must name a file of controls\n";
        (void)!write(STDERR_FILENO, why, sizeof why - 1);
        _exit(EXIT_FAILURE);
    }
    controls = at;
    thread = THREADS_CONTROL;
}

static int is_refused(void)
{
    uint64_t number;

    if (!thread || !(atomic_load(&controls->threads) & thread))
        return 0;
    number = atomic_fetch_add(&controls->counted, 1) + 1;
    if (number < atomic_load(&controls->fails_from) || number >= atomic_load(&controls->fails_until))
        return 0;
    atomic_fetch_add(&controls->failed, 1);
    if (atomic_load(&controls->says))
        say_where();
    errno = ENOMEM;
    return 1;
}

/* Seen from outside; what they end with is a jump, so that a report of a leak names who asked. */
#define OURS __attribute__((visibility("default")))

OURS void *malloc(size_t bytes)
{
    return is_refused() ? NULL : REAL(malloc)(bytes);
}

OURS void *calloc(size_t count, size_t bytes)
{
    return is_refused() ? NULL : REAL(calloc)(count, bytes);
}

OURS void *realloc(void *at, size_t bytes)
{
    return bytes && is_refused() ? NULL : REAL(realloc)(at, bytes);
}

OURS void *reallocarray(void *at, size_t count, size_t bytes)
{
    size_t all;

    if (__builtin_mul_overflow(count, bytes, &all)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(at, all);
}

OURS void *memalign(size_t alignment, size_t bytes)
{
    return is_refused() ? NULL : REAL(memalign)(alignment, bytes);
}

OURS void *aligned_alloc(size_t alignment, size_t bytes)
{
    return memalign(alignment, bytes);
}

OURS int posix_memalign(void **ret_at, size_t alignment, size_t bytes)
{
    int before = errno;
    void *at = memalign(alignment, bytes);

    if (!at) {
        errno = before;
        return ENOMEM;
    }
    *ret_at = at;
    return 0;
}

/* The sanitizer has these two allocate by itself. */
OURS char *strndup(const char *string, size_t most)
{
    size_t len = strnlen(string, most);
    char *copy = malloc(len + 1);

    if (!copy)
        return NULL;
    memcpy(copy, string, len);
    copy[len] = 0;
    return copy;
}

OURS char *strdup(const char *string)
{
    return strndup(string, SIZE_MAX - 1);
}

/* ---- threads ---- */

struct beginning {
    void *(*run)(void *arg);
    void *arg;
};

static void *begin(void *arg)
{
    struct beginning beginning = *(struct beginning *)arg;

    free(arg);
    thread = THREADS_OTHERS;
    return beginning.run(beginning.arg);
}

OURS int pthread_create(pthread_t *ret_thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg)
{
    int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
        (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_NEXT, "pthread_create");
    struct beginning *beginning = malloc(sizeof *beginning);
    int error;

    if (!beginning)
        return EAGAIN;
    *beginning = (struct beginning){ run, arg };
    error = create(ret_thread, attributes, begin, beginning);
    if (error)
        free(beginning);
    return error;
}
