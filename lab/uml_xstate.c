/* Lets user-mode Linux 6.1 run on processors whose XSAVE area is larger than it knows (AMX: 11,008
 * bytes against its 2,696). The host's kernel refuses to set a part of the area (EFAULT, "ptrace set
 * fp regs failed"), so this, preloaded, completes the part from what the process has.
 *
 * Signals are blocked meanwhile: a handler of user-mode Linux may switch to another process and come
 * here again, and its stacks are too small for the area. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

static unsigned char area[65536];

static long call(long request, long pid, void *address, void *data)
{
	return syscall(SYS_ptrace, request, pid, address, data);
}

static long set_whole(long pid, void *address, struct iovec *part)
{
	struct iovec whole = { area, sizeof(area) };
	unsigned long all = ~0UL, former;
	long result;
	int error;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &former, sizeof(all));
	result = call(PTRACE_GETREGSET, pid, address, &whole);
	if (!result) {
		memcpy(area, part->iov_base,
		       part->iov_len < whole.iov_len ? part->iov_len : whole.iov_len);
		result = call(PTRACE_SETREGSET, pid, address, &whole);
	}
	error = errno;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &former, NULL, sizeof(former));
	errno = error;
	return result;
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	va_start(arguments, request);
	long pid = va_arg(arguments, long);
	void *address = va_arg(arguments, void *);
	void *data = va_arg(arguments, void *);
	va_end(arguments);

	if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE)
		return set_whole((int)pid, address, data);
	/* Peeking returns what it read; the system call writes it. */
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
		long word, result = call(request, (int)pid, address, &word);
		return result < 0 ? result : (errno = 0, word);
	}
	return call(request, (int)pid, address, data);
}
