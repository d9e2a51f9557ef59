/* SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause) */
/* Do not edit directly, auto-generated from: */
/*	Documentation/netlink/specs/nlb-fwd.yaml */
/* YNL-GEN uapi header */
/* To regenerate run: scripts/gen-netlink.sh */

#ifndef _UAPI_LINUX_NLB_FWD_H
#define _UAPI_LINUX_NLB_FWD_H

#define NLB_FWD_FAMILY_NAME	"nlb-fwd"
#define NLB_FWD_FAMILY_VERSION	1

/**
 * enum nlb_fwd_service_mode
 * @NLB_FWD_SERVICE_MODE_PEEK: New connections go to the classifier, a listener
 *   on this machine.
 * @NLB_FWD_SERVICE_MODE_L4: The kernel picks the endpoint.
 */
enum nlb_fwd_service_mode {
	NLB_FWD_SERVICE_MODE_PEEK = 1,
	NLB_FWD_SERVICE_MODE_L4,
};

/**
 * enum nlb_fwd_scheduler - How the kernel picks the endpoint of a new
 *   connection.
 * @NLB_FWD_SCHEDULER_WRR: In turn, as often as the weight says.
 * @NLB_FWD_SCHEDULER_RR: In turn; weights do not count, but for 0.
 * @NLB_FWD_SCHEDULER_LC: The one with the fewest connections; one that is
 *   being closed counts 1/256. Weights do not count, but for 0.
 * @NLB_FWD_SCHEDULER_WLC: The one with the fewest connections for its weight.
 * @NLB_FWD_SCHEDULER_MH: By the client's address and port, with Maglev
 *   consistent hashing: the same on every machine that has the same endpoints.
 * @NLB_FWD_SCHEDULER_SH: By the client's address alone, otherwise as mh.
 * @NLB_FWD_SCHEDULER_SED: The one that would have the fewest connections for
 *   its weight with the new one.
 * @NLB_FWD_SCHEDULER_NQ: One without connections, if there is; otherwise as
 *   sed.
 * @NLB_FWD_SCHEDULER_FO: The one with the highest weight, as long as it has
 *   room.
 * @NLB_FWD_SCHEDULER_TWOS: Of two that are drawn by their weights, the one
 *   with fewer connections for its weight.
 */
enum nlb_fwd_scheduler {
	NLB_FWD_SCHEDULER_WRR = 1,
	NLB_FWD_SCHEDULER_RR,
	NLB_FWD_SCHEDULER_LC,
	NLB_FWD_SCHEDULER_WLC,
	NLB_FWD_SCHEDULER_MH,
	NLB_FWD_SCHEDULER_SH,
	NLB_FWD_SCHEDULER_SED,
	NLB_FWD_SCHEDULER_NQ,
	NLB_FWD_SCHEDULER_FO,
	NLB_FWD_SCHEDULER_TWOS,
};

/**
 * enum nlb_fwd_endpoint_state
 * @NLB_FWD_ENDPOINT_STATE_ACTIVE: Gets new connections, by its weight.
 * @NLB_FWD_ENDPOINT_STATE_DRAINING: Gets no new connections and keeps those it
 *   has.
 * @NLB_FWD_ENDPOINT_STATE_INACTIVE: Gets no packet; its routes are removed.
 */
enum nlb_fwd_endpoint_state {
	NLB_FWD_ENDPOINT_STATE_ACTIVE = 1,
	NLB_FWD_ENDPOINT_STATE_DRAINING,
	NLB_FWD_ENDPOINT_STATE_INACTIVE,
};

/**
 * enum nlb_fwd_forward - How a client's packets get to the host of an
 *   endpoint.
 * @NLB_FWD_FORWARD_TUNNEL: In the flow-id tunnel.
 * @NLB_FWD_FORWARD_DIRECT: As they are, on a link that the host is on, too.
 * @NLB_FWD_FORWARD_IPIP: Inside of IP packets.
 * @NLB_FWD_FORWARD_HALF_NAT: With the host's address and port in place of the
 *   service's. The host's replies come back this way and are translated, too.
 * @NLB_FWD_FORWARD_NAT: As with half-nat, and with an address and a port of
 *   this machine in place of the client's.
 * @NLB_FWD_FORWARD_GRE: Inside of IP packets, behind a GRE header without a
 *   key.
 * @NLB_FWD_FORWARD_GUE: Inside of UDP datagrams, behind a GUE header.
 */
enum nlb_fwd_forward {
	NLB_FWD_FORWARD_TUNNEL = 1,
	NLB_FWD_FORWARD_DIRECT,
	NLB_FWD_FORWARD_IPIP,
	NLB_FWD_FORWARD_HALF_NAT,
	NLB_FWD_FORWARD_NAT,
	NLB_FWD_FORWARD_GRE,
	NLB_FWD_FORWARD_GUE,
};

enum nlb_fwd_route_state {
	NLB_FWD_ROUTE_STATE_SYN_RECV = 1,
	NLB_FWD_ROUTE_STATE_ESTABLISHED,
	NLB_FWD_ROUTE_STATE_FIN_WAIT,
	NLB_FWD_ROUTE_STATE_CLOSED,
	NLB_FWD_ROUTE_STATE_UDP,
};

/*
 * Who plumbed the route.
 */
enum nlb_fwd_route_origin {
	NLB_FWD_ROUTE_ORIGIN_L4 = 1,
	NLB_FWD_ROUTE_ORIGIN_MIGRATION,
	NLB_FWD_ROUTE_ORIGIN_MANUAL,
};

/**
 * enum nlb_fwd_route_end - Why a route was removed.
 * @NLB_FWD_ROUTE_END_EXPIRED: No packet came for too long; if its state is
 *   fin-wait or closed, the connection has ended before.
 * @NLB_FWD_ROUTE_END_REPLACED: A new connection has the same addresses and
 *   ports.
 * @NLB_FWD_ROUTE_END_INACTIVE: Its endpoint became inactive.
 * @NLB_FWD_ROUTE_END_DELETED: By a request.
 * @NLB_FWD_ROUTE_END_SERVICE: With its service.
 * @NLB_FWD_ROUTE_END_MIGRATION: The connection did not get to the host after
 *   all, or is not there any more.
 */
enum nlb_fwd_route_end {
	NLB_FWD_ROUTE_END_EXPIRED = 1,
	NLB_FWD_ROUTE_END_REPLACED,
	NLB_FWD_ROUTE_END_INACTIVE,
	NLB_FWD_ROUTE_END_DELETED,
	NLB_FWD_ROUTE_END_SERVICE,
	NLB_FWD_ROUTE_END_MIGRATION,
};

/**
 * enum nlb_fwd_miss_state - What becomes of the packets of a connection that
 *   has no route.
 * @NLB_FWD_MISS_STATE_ASKED: They wait for an answer.
 * @NLB_FWD_MISS_STATE_PASS: They are the local stack's.
 * @NLB_FWD_MISS_STATE_DROP: They are dropped.
 */
enum nlb_fwd_miss_state {
	NLB_FWD_MISS_STATE_ASKED = 1,
	NLB_FWD_MISS_STATE_PASS,
	NLB_FWD_MISS_STATE_DROP,
};

/**
 * enum nlb_fwd_allotment_scheme - What an allotment says of each endpoint.
 * @NLB_FWD_ALLOTMENT_SCHEME_TOKENS: How many new connections it gets.
 * @NLB_FWD_ALLOTMENT_SCHEME_PERCENTAGES: Its part of the new connections.
 */
enum nlb_fwd_allotment_scheme {
	NLB_FWD_ALLOTMENT_SCHEME_TOKENS = 1,
	NLB_FWD_ALLOTMENT_SCHEME_PERCENTAGES,
};

/**
 * enum nlb_fwd_allotment_state
 * @NLB_FWD_ALLOTMENT_STATE_VALID: New connections go by it.
 * @NLB_FWD_ALLOTMENT_STATE_LOW: A quarter of the tokens is left, or of the
 *   time: another one should come.
 * @NLB_FWD_ALLOTMENT_STATE_OVER: No token is left, its time is up, or nobody
 *   who has something left takes connections: new ones go by the scheduler.
 */
enum nlb_fwd_allotment_state {
	NLB_FWD_ALLOTMENT_STATE_VALID = 1,
	NLB_FWD_ALLOTMENT_STATE_LOW,
	NLB_FWD_ALLOTMENT_STATE_OVER,
};

/**
 * enum nlb_fwd_rule_action - What happens to a packet without a route.
 * @NLB_FWD_RULE_ACTION_DROP: It is dropped without a word.
 * @NLB_FWD_RULE_ACTION_REJECT: Its sender is told that nobody is there: by a
 *   RST, or ICMP "port unreachable".
 * @NLB_FWD_RULE_ACTION_ACCEPT: It goes on; rules behind this one are not
 *   looked at.
 */
enum nlb_fwd_rule_action {
	NLB_FWD_RULE_ACTION_DROP = 1,
	NLB_FWD_RULE_ACTION_REJECT,
	NLB_FWD_RULE_ACTION_ACCEPT,
};

/**
 * enum nlb_fwd_trace_outcome - What happens to a packet that opens a
 *   connection.
 * @NLB_FWD_TRACE_OUTCOME_ROUTE: It follows the route that there is.
 * @NLB_FWD_TRACE_OUTCOME_NEW_ROUTE: It makes a route to the endpoint that is
 *   picked.
 * @NLB_FWD_TRACE_OUTCOME_CLASSIFIER: It goes to the classifier.
 * @NLB_FWD_TRACE_OUTCOME_DROP_RULE: A rule drops it.
 * @NLB_FWD_TRACE_OUTCOME_REJECT_RULE: A rule refuses it.
 * @NLB_FWD_TRACE_OUTCOME_NO_SERVICE: It is for no service and goes to the
 *   local stack.
 * @NLB_FWD_TRACE_OUTCOME_NO_ENDPOINT: No endpoint takes connections; it goes
 *   to the local stack.
 * @NLB_FWD_TRACE_OUTCOME_OVERFLOW: It is dropped, for all endpoints are full.
 * @NLB_FWD_TRACE_OUTCOME_TABLE_FULL: It is dropped, for there is no room for a
 *   route.
 * @NLB_FWD_TRACE_OUTCOME_NO_WAY: It is dropped, for there is no way to the
 *   host.
 * @NLB_FWD_TRACE_OUTCOME_STATELESS: It is sent on without a route, for there
 *   is no room for one.
 * @NLB_FWD_TRACE_OUTCOME_REPLY: It is a host's answer to a connection with
 *   half-nat or nat, and goes to the client as a packet of the VIP.
 * @NLB_FWD_TRACE_OUTCOME_ONE_PACKET: It is sent on without a route, for its
 *   service schedules each packet by itself.
 */
enum nlb_fwd_trace_outcome {
	NLB_FWD_TRACE_OUTCOME_ROUTE = 1,
	NLB_FWD_TRACE_OUTCOME_NEW_ROUTE,
	NLB_FWD_TRACE_OUTCOME_CLASSIFIER,
	NLB_FWD_TRACE_OUTCOME_DROP_RULE,
	NLB_FWD_TRACE_OUTCOME_REJECT_RULE,
	NLB_FWD_TRACE_OUTCOME_NO_SERVICE,
	NLB_FWD_TRACE_OUTCOME_NO_ENDPOINT,
	NLB_FWD_TRACE_OUTCOME_OVERFLOW,
	NLB_FWD_TRACE_OUTCOME_TABLE_FULL,
	NLB_FWD_TRACE_OUTCOME_NO_WAY,
	NLB_FWD_TRACE_OUTCOME_STATELESS,
	NLB_FWD_TRACE_OUTCOME_REPLY,
	NLB_FWD_TRACE_OUTCOME_ONE_PACKET,
};

/**
 * enum nlb_fwd_trace_choice - Who picks the endpoint.
 * @NLB_FWD_TRACE_CHOICE_AFFINITY: The client's last connection went there.
 * @NLB_FWD_TRACE_CHOICE_ALLOTMENT: Its turn in the allotment.
 * @NLB_FWD_TRACE_CHOICE_SCHEDULER: The scheduler.
 * @NLB_FWD_TRACE_CHOICE_BACKUP: The scheduler, among the backup endpoints, for
 *   no other can.
 * @NLB_FWD_TRACE_CHOICE_HASH: Consistent hashing, for there may be connections
 *   without a route.
 */
enum nlb_fwd_trace_choice {
	NLB_FWD_TRACE_CHOICE_AFFINITY = 1,
	NLB_FWD_TRACE_CHOICE_ALLOTMENT,
	NLB_FWD_TRACE_CHOICE_SCHEDULER,
	NLB_FWD_TRACE_CHOICE_BACKUP,
	NLB_FWD_TRACE_CHOICE_HASH,
};

/**
 * enum nlb_fwd_trace_slow - Why packets of a connection do not take the fast
 *   path.
 * @NLB_FWD_TRACE_SLOW_IPIP: It is not for packets that travel inside of
 *   others.
 * @NLB_FWD_TRACE_SLOW_WORK: There is something to be done on the way, such as
 *   IPsec.
 * @NLB_FWD_TRACE_SLOW_POST_ROUTING: Somebody has a hook where packets leave.
 * @NLB_FWD_TRACE_SLOW_LINK: The device is no Ethernet.
 * @NLB_FWD_TRACE_SLOW_NEIGHBOUR: The link-layer address of the next hop is not
 *   known.
 * @NLB_FWD_TRACE_SLOW_REPLY: Replies with half-nat and nat never do.
 */
enum nlb_fwd_trace_slow {
	NLB_FWD_TRACE_SLOW_IPIP = 1,
	NLB_FWD_TRACE_SLOW_WORK,
	NLB_FWD_TRACE_SLOW_POST_ROUTING,
	NLB_FWD_TRACE_SLOW_LINK,
	NLB_FWD_TRACE_SLOW_NEIGHBOUR,
	NLB_FWD_TRACE_SLOW_REPLY,
};

enum {
	NLB_FWD_A_SERVICE_VIP_ADDR = 1,
	NLB_FWD_A_SERVICE_VIP_PORT,
	NLB_FWD_A_SERVICE_PROTO,
	NLB_FWD_A_SERVICE_MODE,
	NLB_FWD_A_SERVICE_ENDPOINTS,
	NLB_FWD_A_SERVICE_CONNECTIONS,
	NLB_FWD_A_SERVICE_PACKETS,
	NLB_FWD_A_SERVICE_BYTES,
	NLB_FWD_A_SERVICE_CLASSIFIER_PORT,
	NLB_FWD_A_SERVICE_SCHEDULER,
	NLB_FWD_A_SERVICE_AFFINITY_TIMEOUT,
	NLB_FWD_A_SERVICE_AFFINITY_PREFIX,
	NLB_FWD_A_SERVICE_SLOW_START,
	NLB_FWD_A_SERVICE_IDLE_TIMEOUT,
	NLB_FWD_A_SERVICE_FIN_TIMEOUT,
	NLB_FWD_A_SERVICE_SYN_TIMEOUT,
	NLB_FWD_A_SERVICE_MISS_TIMEOUT,
	NLB_FWD_A_SERVICE_VIP_PORT_LAST,
	NLB_FWD_A_SERVICE_ONE_PACKET,

	__NLB_FWD_A_SERVICE_MAX,
	NLB_FWD_A_SERVICE_MAX = (__NLB_FWD_A_SERVICE_MAX - 1)
};

enum {
	NLB_FWD_A_ENDPOINT_VIP_ADDR = 1,
	NLB_FWD_A_ENDPOINT_VIP_PORT,
	NLB_FWD_A_ENDPOINT_PROTO,
	NLB_FWD_A_ENDPOINT_HOST_ADDR,
	NLB_FWD_A_ENDPOINT_SOURCE_ADDR,
	NLB_FWD_A_ENDPOINT_WEIGHT,
	NLB_FWD_A_ENDPOINT_ROUTES,
	NLB_FWD_A_ENDPOINT_CONNECTIONS,
	NLB_FWD_A_ENDPOINT_PACKETS,
	NLB_FWD_A_ENDPOINT_BYTES,
	NLB_FWD_A_ENDPOINT_ACTIVE_ROUTES,
	NLB_FWD_A_ENDPOINT_STATE,
	NLB_FWD_A_ENDPOINT_FORWARD,
	NLB_FWD_A_ENDPOINT_HOST_PORT,
	NLB_FWD_A_ENDPOINT_MAX_ROUTES,
	NLB_FWD_A_ENDPOINT_BACKUP,
	NLB_FWD_A_ENDPOINT_VIP_PORT_LAST,
	NLB_FWD_A_ENDPOINT_SLOW_START_STEP,
	NLB_FWD_A_ENDPOINT_RESUME_ROUTES,
	NLB_FWD_A_ENDPOINT_FULL,
	NLB_FWD_A_ENDPOINT_TUN_PORT,
	NLB_FWD_A_ENDPOINT_TUN_CSUM,

	__NLB_FWD_A_ENDPOINT_MAX,
	NLB_FWD_A_ENDPOINT_MAX = (__NLB_FWD_A_ENDPOINT_MAX - 1)
};

enum {
	NLB_FWD_A_ROUTE_PROTO = 1,
	NLB_FWD_A_ROUTE_CLIENT_ADDR,
	NLB_FWD_A_ROUTE_CLIENT_PORT,
	NLB_FWD_A_ROUTE_VIP_ADDR,
	NLB_FWD_A_ROUTE_VIP_PORT,
	NLB_FWD_A_ROUTE_HOST_ADDR,
	NLB_FWD_A_ROUTE_FORWARDER_ADDR,
	NLB_FWD_A_ROUTE_FLOW_ID,
	NLB_FWD_A_ROUTE_STATE,
	NLB_FWD_A_ROUTE_ORIGIN,
	NLB_FWD_A_ROUTE_EXPIRES,
	NLB_FWD_A_ROUTE_PACKETS,
	NLB_FWD_A_ROUTE_BYTES,
	NLB_FWD_A_ROUTE_FORWARD,
	NLB_FWD_A_ROUTE_FORWARDER_PORT,
	NLB_FWD_A_ROUTE_END,
	NLB_FWD_A_ROUTE_HOST_PORT,

	__NLB_FWD_A_ROUTE_MAX,
	NLB_FWD_A_ROUTE_MAX = (__NLB_FWD_A_ROUTE_MAX - 1)
};

enum {
	NLB_FWD_A_MISS_PROTO = 1,
	NLB_FWD_A_MISS_CLIENT_ADDR,
	NLB_FWD_A_MISS_CLIENT_PORT,
	NLB_FWD_A_MISS_VIP_ADDR,
	NLB_FWD_A_MISS_VIP_PORT,
	NLB_FWD_A_MISS_STATE,
	NLB_FWD_A_MISS_HELD,
	NLB_FWD_A_MISS_AGE,

	__NLB_FWD_A_MISS_MAX,
	NLB_FWD_A_MISS_MAX = (__NLB_FWD_A_MISS_MAX - 1)
};

enum {
	NLB_FWD_A_ALLOTMENT_SHARE_HOST_ADDR = 1,
	NLB_FWD_A_ALLOTMENT_SHARE_AMOUNT,
	NLB_FWD_A_ALLOTMENT_SHARE_HOST_PORT,

	__NLB_FWD_A_ALLOTMENT_SHARE_MAX,
	NLB_FWD_A_ALLOTMENT_SHARE_MAX = (__NLB_FWD_A_ALLOTMENT_SHARE_MAX - 1)
};

enum {
	NLB_FWD_A_ALLOTMENT_VIP_ADDR = 1,
	NLB_FWD_A_ALLOTMENT_VIP_PORT,
	NLB_FWD_A_ALLOTMENT_PROTO,
	NLB_FWD_A_ALLOTMENT_SCHEME,
	NLB_FWD_A_ALLOTMENT_AGE,
	NLB_FWD_A_ALLOTMENT_SHARE,
	NLB_FWD_A_ALLOTMENT_STATE,
	NLB_FWD_A_ALLOTMENT_LEFT,
	NLB_FWD_A_ALLOTMENT_EXPIRES,
	NLB_FWD_A_ALLOTMENT_VIP_PORT_LAST,

	__NLB_FWD_A_ALLOTMENT_MAX,
	NLB_FWD_A_ALLOTMENT_MAX = (__NLB_FWD_A_ALLOTMENT_MAX - 1)
};

enum {
	NLB_FWD_A_RULE_PRIORITY = 1,
	NLB_FWD_A_RULE_ACTION,
	NLB_FWD_A_RULE_FROM_ADDR,
	NLB_FWD_A_RULE_FROM_PREFIX,
	NLB_FWD_A_RULE_VIP_ADDR,
	NLB_FWD_A_RULE_VIP_PORT,
	NLB_FWD_A_RULE_VIP_PORT_LAST,
	NLB_FWD_A_RULE_PROTO,
	NLB_FWD_A_RULE_PACKETS,
	NLB_FWD_A_RULE_BYTES,

	__NLB_FWD_A_RULE_MAX,
	NLB_FWD_A_RULE_MAX = (__NLB_FWD_A_RULE_MAX - 1)
};

enum {
	NLB_FWD_A_TRACE_PROTO = 1,
	NLB_FWD_A_TRACE_CLIENT_ADDR,
	NLB_FWD_A_TRACE_CLIENT_PORT,
	NLB_FWD_A_TRACE_VIP_ADDR,
	NLB_FWD_A_TRACE_VIP_PORT,
	NLB_FWD_A_TRACE_OUTCOME,
	NLB_FWD_A_TRACE_SERVICE_PORT,
	NLB_FWD_A_TRACE_SERVICE_PORT_LAST,
	NLB_FWD_A_TRACE_RULE,
	NLB_FWD_A_TRACE_ROUTE_STATE,
	NLB_FWD_A_TRACE_AFFINITY_HOST,
	NLB_FWD_A_TRACE_AFFINITY_EXPIRES,
	NLB_FWD_A_TRACE_ALLOTMENT_STATE,
	NLB_FWD_A_TRACE_CHOICE,
	NLB_FWD_A_TRACE_HOST_ADDR,
	NLB_FWD_A_TRACE_FORWARD,
	NLB_FWD_A_TRACE_SOURCE_ADDR,
	NLB_FWD_A_TRACE_IFINDEX,
	NLB_FWD_A_TRACE_MTU,
	NLB_FWD_A_TRACE_SLOW,
	NLB_FWD_A_TRACE_ANSWERED_CLIENT_ADDR,
	NLB_FWD_A_TRACE_ANSWERED_CLIENT_PORT,
	NLB_FWD_A_TRACE_ANSWERED_VIP_ADDR,
	NLB_FWD_A_TRACE_ANSWERED_VIP_PORT,
	NLB_FWD_A_TRACE_HOST_PORT,
	NLB_FWD_A_TRACE_AFFINITY_HOST_PORT,

	__NLB_FWD_A_TRACE_MAX,
	NLB_FWD_A_TRACE_MAX = (__NLB_FWD_A_TRACE_MAX - 1)
};

enum {
	NLB_FWD_A_COUNTER_NAME = 1,
	NLB_FWD_A_COUNTER_VALUE,

	__NLB_FWD_A_COUNTER_MAX,
	NLB_FWD_A_COUNTER_MAX = (__NLB_FWD_A_COUNTER_MAX - 1)
};

enum {
	NLB_FWD_A_STATS_COUNTER = 1,
	NLB_FWD_A_STATS_CPU,

	__NLB_FWD_A_STATS_MAX,
	NLB_FWD_A_STATS_MAX = (__NLB_FWD_A_STATS_MAX - 1)
};

enum {
	NLB_FWD_CMD_SERVICE_NEW = 1,
	NLB_FWD_CMD_SERVICE_DEL,
	NLB_FWD_CMD_SERVICE_GET,
	NLB_FWD_CMD_ENDPOINT_NEW,
	NLB_FWD_CMD_ENDPOINT_SET,
	NLB_FWD_CMD_ENDPOINT_DEL,
	NLB_FWD_CMD_ENDPOINT_GET,
	NLB_FWD_CMD_ROUTE_NEW,
	NLB_FWD_CMD_ROUTE_DEL,
	NLB_FWD_CMD_ROUTE_GET,
	NLB_FWD_CMD_SERVICE_NTF,
	NLB_FWD_CMD_SERVICE_DEL_NTF,
	NLB_FWD_CMD_ENDPOINT_NTF,
	NLB_FWD_CMD_ENDPOINT_DEL_NTF,
	NLB_FWD_CMD_ROUTE_NTF,
	NLB_FWD_CMD_ROUTE_DEL_NTF,
	NLB_FWD_CMD_STATS_GET,
	NLB_FWD_CMD_SERVICE_SET,
	NLB_FWD_CMD_ALLOTMENT_SET,
	NLB_FWD_CMD_ALLOTMENT_DEL,
	NLB_FWD_CMD_ALLOTMENT_GET,
	NLB_FWD_CMD_ALLOTMENT_NTF,
	NLB_FWD_CMD_ALLOTMENT_DEL_NTF,
	NLB_FWD_CMD_MISS_GET,
	NLB_FWD_CMD_MISS_SET,
	NLB_FWD_CMD_MISS_NTF,
	NLB_FWD_CMD_LIMIT_NTF,
	NLB_FWD_CMD_RULE_NEW,
	NLB_FWD_CMD_RULE_DEL,
	NLB_FWD_CMD_RULE_FLUSH,
	NLB_FWD_CMD_RULE_GET,
	NLB_FWD_CMD_RULE_NTF,
	NLB_FWD_CMD_RULE_DEL_NTF,
	NLB_FWD_CMD_TRACE_GET,
	NLB_FWD_CMD_SERVICE_ZERO,

	__NLB_FWD_CMD_MAX,
	NLB_FWD_CMD_MAX = (__NLB_FWD_CMD_MAX - 1)
};

#define NLB_FWD_MCGRP_EVENTS	"events"
#define NLB_FWD_MCGRP_ROUTES	"routes"
#define NLB_FWD_MCGRP_MISSES	"misses"

#endif /* _UAPI_LINUX_NLB_FWD_H */
