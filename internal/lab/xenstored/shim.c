/* Preloaded into Debian's xenstored 4.17, it stands for the hypervisor and its devices, so that the real program serves
 * its Unix socket on a machine without Xen. There is dom0 alone, whose ring never has anything in it.
 * When the socket listens, file descriptor READY_FD is closed: whoever holds the other end of that pipe may connect. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define READY_FD 3
#define PAGE 4096

static char nothing[PAGE]; /* what every opened interface points to; nobody looks inside */

/* libxenctrl: every domain that is asked for exists. The caller compares the first word, the domain's number, and reads
 * the flags, at offset 8: none is set, so it neither dies nor is it shut down. */
struct domain {
	uint32_t number, ssidref, flags;
};

void *xc_interface_open(void *logger, void *dombuild_logger, unsigned flags) { return nothing; }
int xc_interface_close(void *interface) { return 0; }
int xc_domain_getinfo(void *interface, uint32_t number, unsigned most, struct domain *info)
{
	info->number = number;
	info->ssidref = 0;
	info->flags = 0;
	return 1;
}

/* libxenevtchn: channels can be bound, and nothing ever comes through one. */
void *xenevtchn_open(void *logger, unsigned flags) { return nothing; }
void *xenevtchn_fdopen(void *logger, int fd, unsigned flags) { return nothing; }
int xenevtchn_fd(void *channel)
{
	static int never_readable = -1;

	if (never_readable < 0)
		never_readable = eventfd(0, EFD_CLOEXEC);
	return never_readable;
}
int xenevtchn_bind_interdomain(void *channel, uint32_t domain, uint32_t port) { return 1; }
int xenevtchn_bind_virq(void *channel, unsigned virq) { return 2; }
int xenevtchn_notify(void *channel, uint32_t port) { return 0; }
int xenevtchn_unbind(void *channel, uint32_t port) { return 0; }
int xenevtchn_pending(void *channel) { return -1; }
int xenevtchn_unmask(void *channel, uint32_t port) { return 0; }

/* libxengnttab: a domain's ring is an empty page. */
void *xengnttab_open(void *logger, unsigned flags) { return nothing; }
int xengnttab_close(void *table) { return 0; }
int xengnttab_set_max_grants(void *table, uint32_t number) { return 0; }
void *xengnttab_map_grant_ref(void *table, uint32_t domain, uint32_t reference, int protection)
{
	return mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
int xengnttab_unmap(void *table, void *page, uint32_t pages) { return munmap(page, (size_t)pages * PAGE); }

/* The kernel's devices: dom0's own ring, and the number of its event channel. */
static int made_up(const char *path)
{
	int fd;

	if (strcmp(path, "/proc/xen/xsd_port") == 0) {
		fd = memfd_create("port", 0);
		if (fd < 0 || write(fd, "1\n", 2) != 2 || lseek(fd, 0, SEEK_SET) != 0)
			return -1;
		return fd;
	}
	if (strcmp(path, "/dev/xen/xenbus") == 0 || strcmp(path, "/proc/xen/xenbus") == 0 || strcmp(path, "/proc/xen/xsd_kva") == 0) {
		fd = memfd_create("ring", 0);
		if (fd < 0 || ftruncate(fd, PAGE) != 0)
			return -1;
		return fd;
	}
	return -1;
}

int open(const char *path, int flags, ...)
{
	static int (*real)(const char *, int, ...);
	int fd = made_up(path);
	va_list rest;
	int mode;

	if (fd >= 0)
		return fd;
	if (real == NULL)
		real = dlsym(RTLD_NEXT, "open");
	va_start(rest, flags);
	mode = flags & O_CREAT ? va_arg(rest, int) : 0;
	va_end(rest);
	return real(path, flags, mode);
}

int listen(int fd, int backlog)
{
	static int (*real)(int, int);
	int result;

	if (real == NULL)
		real = dlsym(RTLD_NEXT, "listen");
	result = real(fd, backlog);
	close(READY_FD);
	return result;
}
