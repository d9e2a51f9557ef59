// SPDX-License-Identifier: GPL-2.0
/*
 * python3 ARG...: what python3(1) does, by a process that server.py forks: it has loaded what takes Python most of
 * its start, which on an emulated processor is a second. Where no server listens at $NLB_PYTHON, python3 itself.
 *
 * Our end of the connection stands for our life: when it closes, that process is killed.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define REAL "/usr/bin/python3"

extern char **environ;
static volatile pid_t child;

static void forward(int signal)
{
	if (child)
		kill(child, signal);
	else
		_exit(128 + signal);
}

static size_t append(char *to, size_t at, size_t size, char **strings)
{
	for (; *strings; strings++) {
		size_t len = strlen(*strings) + 1;

		if (len > size - at) {
			fprintf(stderr, "python3: too many arguments\n");
			exit(1);
		}
		memcpy(to + at, *strings, len);
		at += len;
	}
	return at;
}

static int run(int sock, int argc, char **argv)
{
	static const int forwarded[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 };
	static char request[1 << 18];
	int fds[] = { 0, 1, 2, open(".", O_PATH | O_CLOEXEC), open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC) };
	union {
		char buf[CMSG_SPACE(sizeof(fds))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = request };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	int32_t answer;

	/* How many arguments there are, these, and the environment. */
	iov.iov_len = sprintf(request, "%d", argc) + 1;
	iov.iov_len = append(request, iov.iov_len, sizeof(request), argv);
	iov.iov_len = append(request, iov.iov_len, sizeof(request), environ);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(cmsg), fds, sizeof(fds));
	for (size_t i = 0; i < sizeof(forwarded) / sizeof(*forwarded); i++) {
		struct sigaction old, action = { .sa_handler = forward, .sa_flags = SA_RESTART };

		sigaction(forwarded[i], NULL, &old);
		if (old.sa_handler != SIG_IGN)
			sigaction(forwarded[i], &action, NULL);
	}
	if (sendmsg(sock, &msg, 0) < 0 || recv(sock, &answer, sizeof(answer), 0) != sizeof(answer)) {
		perror("python3: server");
		return 1;
	}
	child = answer;
	/* Whoever reads from us or writes to us has to see the end of the child's descriptors, not of ours. */
	close(0);
	close(1);
	if (recv(sock, &answer, sizeof(answer), 0) != sizeof(answer))
		return 1;
	if (answer >= 0)
		return answer;
	signal(-answer, SIG_DFL);
	raise(-answer);
	return 128 - answer;
}

/* Whether the server understands a first argument. */
static int known(const char *arg)
{
	return *arg != '-' || !strcmp(arg, "-") || !strcmp(arg, "-c") || !strcmp(arg, "-u");
}

int main(int argc, char **argv)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const char *path = getenv("NLB_PYTHON");
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (path && strlen(path) < sizeof(addr.sun_path) && known(argc > 1 ? argv[1] : "-")) {
		strcpy(addr.sun_path, path);
		if (!connect(sock, (struct sockaddr *)&addr, sizeof(addr)))
			return run(sock, argc, argv);
	}
	close(sock);
	execv(REAL, argv);
	perror(REAL);
	return 127;
}
