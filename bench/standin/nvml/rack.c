/* Making, mapping and locking the shared state. */
#include "rack.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x42535449u

int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void sleep_ns(int64_t duration_ns)
{
    struct timespec left = {duration_ns / 1000000000, duration_ns % 1000000000};
    while (duration_ns > 0 && nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

static Rack *map_file(int file)
{
    void *memory = mmap(NULL, sizeof(Rack), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static int right_size(int file)
{
    struct stat found;
    return fstat(file, &found) == 0 && found.st_size == (off_t)sizeof(Rack);
}

static int is_ours(const Rack *rack)
{
    return rack->magic == MAGIC && rack->version == LAYOUT_VERSION && rack->size == sizeof(Rack);
}

Rack *rack_map(const char *path)
{
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return NULL;
    Rack *rack = right_size(file) ? map_file(file) : NULL;
    close(file);
    if (rack != NULL && !is_ours(rack)) {
        rack_unmap(rack);
        return NULL;
    }
    return rack;
}

void rack_unmap(Rack *rack) { munmap(rack, sizeof(Rack)); }

/* Robust: when the owner dies, even by SIGKILL, the kernel hands the lock to the next who asks. */
static void make_mutex(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

void rack_lock(Rack *rack)
{
    /* What a dead owner leaves is usable: at worst one step of the physics, microseconds long, counts twice. */
    if (pthread_mutex_lock(&rack->mutex) == EOWNERDEAD)
        pthread_mutex_consistent(&rack->mutex);
}

int64_t rack_now(const Rack *rack)
{
    return (rack->stopped_ns != 0 ? rack->stopped_ns : monotonic_ns()) + rack->skipped_ns;
}

void rack_unlock(Rack *rack) { pthread_mutex_unlock(&rack->mutex); }

/* Make an empty rack that nobody can open yet; its cards are filled in, then it is published. */
EXPORTED Rack *standinCreate(const char *path)
{
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file < 0)
        return NULL;
    fchmod(file, 0666); /* whatever the umask: daemon and keeper run under different users */
    Rack *rack = ftruncate(file, sizeof(Rack)) == 0 ? map_file(file) : NULL;
    close(file);
    if (rack != NULL) {
        rack->version = LAYOUT_VERSION;
        rack->size = sizeof(Rack);
        make_mutex(&rack->mutex);
    }
    return rack;
}

EXPORTED void standinPublish(Rack *rack)
{
    __atomic_store_n(&rack->magic, MAGIC, __ATOMIC_RELEASE);
}

EXPORTED Rack *standinOpen(const char *path) { return rack_map(path); }
EXPORTED void standinClose(Rack *rack) { rack_unmap(rack); }
EXPORTED int64_t standinNow(const Rack *rack) { return rack_now(rack); }
EXPORTED int64_t standinMonotonic(void) { return monotonic_ns(); }
EXPORTED void standinLock(Rack *rack) { rack_lock(rack); }
EXPORTED void standinUnlock(Rack *rack) { rack_unlock(rack); }

/* How much of the rack the control's own description of it must cover exactly. */
EXPORTED uint32_t standinDescribedSize(void) { return offsetof(Rack, mutex); }
