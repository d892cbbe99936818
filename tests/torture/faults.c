/* Fails one system call of a process that was started with LD_PRELOAD of this: the Nth on files of the user's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static long left = -1, seen = 0;
static int code = 0, lasting = 0, fired = 0;
static char last[32];
static char place[4096];
static size_t length = 0;

/* Counts calls from now on; fails number `at` (and all after it, if `forever`) with `error`. */
void arm(const char *below, long at, int error, int forever) {
  length = strlen(below);
  memcpy(place, below, length + 1);
  left = at, code = error, lasting = forever, seen = 0, fired = 0;
}
void disarm(void) { left = -1; }
long calls(void) { return seen; }
int has_fired(void) { return fired; }
const char *which(void) { return last; }

static int fails(const char *name) {
  seen++;
  if (left > 0 && --left > 0) return 0;
  if (left < 0) return 0;
  if (!lasting) left = -1;
  fired = 1;
  snprintf(last, sizeof last, "%s", name);
  errno = code;
  return 1;
}
static int of_path(const char *name, const char *path) {
  if (left < 0 || !path) return 0;
  if (path[0] == '/' && strncmp(path, place, length)) return 0;
  return fails(name);
}
static int of_file(const char *name, int fd) {
  char link[64], path[4096];
  if (left < 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t got = readlink(link, path, sizeof path - 1);
  if (got < 0) return 0;
  path[got] = 0;
  return strncmp(path, place, length) ? 0 : fails(name);
}
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define BY_FILE(result, name, parameters, given) \
  result name parameters { return of_file(#name, fd) ? -1 : REAL(name) given; }
#define BY_PATH(result, name, parameters, given) \
  result name parameters { return of_path(#name, path) ? -1 : REAL(name) given; }
#define OPEN(name)                                        \
  int name(const char *path, int flags, ...) {            \
    va_list more;                                         \
    va_start(more, flags);                                \
    mode_t mode = va_arg(more, mode_t);                   \
    va_end(more);                                         \
    return of_path(#name, path) ? -1 : REAL(name)(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)
#define OPENAT(name)                                      \
  int name(int at, const char *path, int flags, ...) {    \
    va_list more;                                         \
    va_start(more, flags);                                \
    mode_t mode = va_arg(more, mode_t);                   \
    va_end(more);                                         \
    return of_path(#name, path) ? -1 : REAL(name)(at, path, flags, mode); \
  }
OPENAT(openat)
OPENAT(openat64)
BY_FILE(ssize_t, read, (int fd, void *to, size_t n), (fd, to, n))
BY_FILE(ssize_t, write, (int fd, const void *from, size_t n), (fd, from, n))
BY_FILE(ssize_t, pread, (int fd, void *to, size_t n, off_t at), (fd, to, n, at))
BY_FILE(ssize_t, pread64, (int fd, void *to, size_t n, off64_t at), (fd, to, n, at))
BY_FILE(ssize_t, pwrite, (int fd, const void *from, size_t n, off_t at), (fd, from, n, at))
BY_FILE(ssize_t, pwrite64, (int fd, const void *from, size_t n, off64_t at), (fd, from, n, at))
BY_FILE(ssize_t, preadv, (int fd, const struct iovec *to, int n, off_t at), (fd, to, n, at))
BY_FILE(ssize_t, preadv64, (int fd, const struct iovec *to, int n, off64_t at), (fd, to, n, at))
BY_FILE(ssize_t, preadv64v2, (int fd, const struct iovec *to, int n, off64_t at, int flags), (fd, to, n, at, flags))
BY_FILE(int, fsync, (int fd), (fd))
BY_FILE(int, fdatasync, (int fd), (fd))
BY_FILE(int, ftruncate64, (int fd, off64_t size), (fd, size))
BY_FILE(int, fstat, (int fd, struct stat *to), (fd, to))
BY_FILE(int, fstat64, (int fd, struct stat64 *to), (fd, to))
BY_FILE(int, fchmod, (int fd, mode_t mode), (fd, mode))
BY_FILE(int, posix_fallocate64, (int fd, off64_t at, off64_t size), (fd, at, size))
BY_PATH(int, stat, (const char *path, struct stat *to), (path, to))
BY_PATH(int, stat64, (const char *path, struct stat64 *to), (path, to))
BY_PATH(int, lstat, (const char *path, struct stat *to), (path, to))
BY_PATH(int, lstat64, (const char *path, struct stat64 *to), (path, to))
BY_PATH(int, mkdir, (const char *path, mode_t mode), (path, mode))
BY_PATH(int, rmdir, (const char *path), (path))
BY_PATH(int, unlink, (const char *path), (path))
BY_PATH(int, chmod, (const char *path, mode_t mode), (path, mode))
BY_PATH(int, link, (const char *path, const char *to), (path, to))
BY_PATH(int, rename, (const char *path, const char *to), (path, to))
int renameat2(int at, const char *path, int to_at, const char *to, unsigned flags) {
  return of_path("renameat2", path) ? -1 : REAL(renameat2)(at, path, to_at, to, flags);
}
int renameat(int at, const char *path, int to_at, const char *to) {
  return of_path("renameat", path) ? -1 : REAL(renameat)(at, path, to_at, to);
}
int unlinkat(int at, const char *path, int flags) {
  return of_path("unlinkat", path) ? -1 : REAL(unlinkat)(at, path, flags);
}
int mkdirat(int at, const char *path, mode_t mode) {
  return of_path("mkdirat", path) ? -1 : REAL(mkdirat)(at, path, mode);
}
int fstatat64(int at, const char *path, struct stat64 *to, int flags) {
  return of_path("fstatat", path) ? -1 : REAL(fstatat64)(at, path, to, flags);
}
int fstatat(int at, const char *path, struct stat *to, int flags) {
  return of_path("fstatat", path) ? -1 : REAL(fstatat)(at, path, to, flags);
}
int close(int fd) { /* closes, and then says that it could not write */
  int failed = of_file("close", fd), done = REAL(close)(fd);
  if (failed) errno = code;
  return failed ? -1 : done;
}
