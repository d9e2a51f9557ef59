/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * report NAME VIP [SOCKET]: an application that reports how busy the processors are, as its load. The part that
 * matters is the loop.
 */
#define _DEFAULT_SOURCE
#include <nlb-app.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Processes that run or want to, in percent of the processors. */
static unsigned int load(void)
{
	double running = 0, percent;

	getloadavg(&running, 1);
	percent = running * 100 / sysconf(_SC_NPROCESSORS_ONLN);
	return percent < 100 ? percent : 100;
}

int main(int argc, char **argv)
{
	struct nlb_app_options options = NLB_APP_OPTIONS_INIT;
	struct nlb_app *app;

	options.socket = argc == 4 ? argv[3] : NULL;
	if (argc < 3 || argc > 4 || nlb_app_open(&app, argv[1], argv[2], &options)) {
		fprintf(stderr, "usage: report NAME VIP [SOCKET]\n");
		return 2;
	}
	for (;; sleep(5))
		if (nlb_app_load(app, load()))
			fprintf(stderr, "%s\n", nlb_error_text());
}
