# SPDX-License-Identifier: GPL-2.0
# The Debian kernel everything is built for and tested on, and the only place that names it.
KVER ?= 7.2.12+deb13-cloud-amd64
