/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * libnlb: hand an established TCP connection over to another machine.
 *
 * The program accepts on a virtual IP (VIP) of an nlb load balancing unit, looks at what the client has
 * sent (recv() with MSG_PEEK), picks a machine, and calls nlb_migrate(). The application on that machine
 * gets the connection from its accept(), with every byte that was not read here; the client does not
 * notice. See nlb_migrate(3) and libnlb(3). Applications behind it report with the functions of nlb-app.h.
 *
 * All functions may be called by any number of threads at a time, and in a child of fork(). None changes a
 * signal disposition, leaves a descriptor open, or starts a thread. errno means nothing after a call.
 */
#ifndef NLB_H
#define NLB_H

#include <stddef.h>
#include <stdint.h>

#include <nlb-reasons.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How to hand a connection over. Set up with NLB_OPTIONS_INIT; what is 0 has its default. */
struct nlb_options {
	size_t size;		/* sizeof(struct nlb_options): later versions have more members */
	uint32_t timeout_ms;	/* how long to wait for each answer of the target, 10 to 30000; 0: 2000 */
	uint32_t read_bytes;	/* how many of the bytes that were read last go with the connection, too */
};

#define NLB_OPTIONS_INIT { sizeof(struct nlb_options), 0, 0 }

/*
 * Hand the connection of the socket fd over to the machine with the address target, such as "10.0.2.2",
 * which is a peer of this one (nlb peer show). options may be NULL. Blocks for up to a few times the
 * timeout. Returns 0 or a negative error number:
 *
 *	0		the connection lives at the target; fd is dead, close it
 *	-ECONNRESET	it cannot be known whether the target has it: it was reset; close fd
 *	-EBADMSG	the kernel's answer was lost or not understood; close fd
 *	anything else	the connection stayed and works as before
 *
 * read_bytes takes the bytes from a copy, which the kernel has if it was told to (nlb keep add), and as long
 * as no more was read from the connection than that says: else -ENODATA, NLB_REASON_NOT_KEPT.
 *
 * "Anything else" includes -EPERM (CAP_NET_ADMIN is missing), -ENOSYS (the module nlb_migrator is not loaded) and
 * -EINVAL (an argument). fd stays the caller's in every case. nlb_error_text() says more.
 */
int nlb_migrate(int fd, const char *target, const struct nlb_options *options);

/*
 * Why this thread's last call of nlb_migrate() or a function of nlb-app.h failed, as a sentence without a full
 * stop, in UTF-8; "" if it did not. Never NULL. The text belongs to the library and is valid until the thread
 * calls one of these again or ends.
 */
const char *nlb_error_text(void);

/*
 * The same as a number, an enum nlb_reason or one that a later kernel has added; NLB_REASON_NONE if the call
 * did not fail, or failed before there was something to migrate.
 */
unsigned int nlb_error_reason(void);

/* The version of the library, such as "0.1.0"; static. */
const char *nlb_version(void);

#ifdef __cplusplus
}
#endif

#endif
