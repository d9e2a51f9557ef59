#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug
#
# nlb-agent alone, on one host: what applications and checks have it know.

. "$(dirname "$0")/lib.sh"

agent_config() {
	cat <<-EOF
		host = 1
		lbus = ["$LBU_TO_HOST1:4771"]
		addresses = ["$HOST1"]
		socket = "$tmp/host1/socket"
		state = "$tmp/host1/state.json"
	EOF
	check_of site 443 https 'path = "/page"' 'body = "web host1"' 'host = "www.example.com"' 'ca_file = "../ca.pem"'
	check_of certificate 443 certificate 'server_name = "www.example.com"' 'ca_file = "../ca.pem"' 'days = 7'
	check_of any 443 certificate 'verify = false' 'days = 7'
	check_of rpc 50051 grpc
	check_of cart 50051 grpc 'service = "shop.Cart"'
	check_of rpc-tls 50052 grpc 'tls = true' 'server_name = "www.example.com"' 'ca_file = "../ca.pem"'
}
# check_of APPLICATION PORT KIND LINE...
check_of() {
	printf '[[app]]\nname = "%s"\nvip = "%s:%s/tcp"\ndetail = "%s"\n' "$1" $VIP "$2" "$1"
	printf '[[app.check]]\nkind = "%s"\ninterval_ms = 200\ntimeout_ms = 20000\nrise = 1\nfall = 1\n' "$3"
	printf '%s\n' "${@:4}"
}
# certificate NAME CA OPTION...: of a server, signed by that CA. authority NAME: of a CA.
certificate() {
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=server \
		-addext subjectAltName=DNS:www.example.com -keyout "$tmp/$1.key" -out "$tmp/$1.csr"
	openssl x509 -req -in "$tmp/$1.csr" -CA "$tmp/$2.pem" -CAkey "$tmp/$2.key" -copy_extensions copy "${@:3}" \
		-out "$tmp/$1.pem"
}
authority() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" -days 30 \
		-keyout "$tmp/$1.key" -out "$tmp/$1.pem"
}
certificates() {
	authority ca
	authority other-ca
	certificate good ca -days 30
	certificate short ca -days 3
	certificate over ca -not_before 20200101000000Z -not_after 20210101000000Z
	certificate foreign other-ca -days 30
}

# fails APPLICATION TEXT: for this reason.
fails() {
	app_is host1 "$1" health failing && nlb -j app show "$1" socket "$tmp/host1/socket" | jq -r '.[0].why' | grep -qF -- "$2"
}

# nginx_with CERTIFICATE
nginx_with() {
	local dir=$tmp/tls
	mkdir -p "$dir/www"
	echo "web host1" >"$dir/www/page"
	cat >"$dir/conf" <<-EOF
		daemon off;
		pid $dir/pid;
		error_log $dir/error.log;
		events { }
		http {
			access_log off;
			server { listen 443 ssl; ssl_certificate $tmp/$1.pem; ssl_certificate_key $tmp/$1.key; root $dir/www; }
		}
	EOF
	chmod a+rx "$tmp"
	chmod -R a+rX "$dir"
	if [ -e "$dir/pid" ]; then
		kill -HUP "$(<"$dir/pid")"
	else
		background host1 "$dir/log" nginx -e "$dir/error.log" -c "$dir/conf"
	fi
}
# The reason is that of the first bad look after a good one.
good() {
	local app
	nginx_with good
	for app in site certificate any; do wait_for 20 app_is host1 $app health healthy; done
}
checks_over_tls() {
	local app
	for app in site certificate any; do wait_for 20 app_is host1 $app health failing; done
	good
	nginx_with short
	for app in certificate any; do wait_for 20 fails $app "for 2 days and not for 7"; done
	app_is host1 site health healthy
	good
	nginx_with foreign
	for app in site certificate; do wait_for 20 fails $app UnknownIssuer; done
	app_is host1 any health healthy
	good
	nginx_with over
	wait_for 20 fails any "was valid until 2021-01-01"
	for app in site certificate; do wait_for 20 fails $app "certificate expired"; done
	good
	echo other >"$tmp/tls/www/page"
	wait_for 20 fails site "not in the body"
	app_is host1 certificate health healthy
}

# A server of another implementation, whose state is in a file: as a HealthCheckResponse has it.
serving() { echo "$1" >"$tmp/serving.new" && mv "$tmp/serving.new" "$tmp/serving"; }
checks_by_grpc() {
	local app
	serving 1
	background host1 "$tmp/grpc.log" /usr/bin/python3 -c "
import concurrent.futures, grpc
def check(request, context):
    if request not in (b'', b'\\x0a\\x09shop.Cart'):
        context.abort(grpc.StatusCode.NOT_FOUND, 'another service')
    if request and not open('$tmp/serving').read().strip():
        context.abort(grpc.StatusCode.UNAVAILABLE, 'nothing in the cart')
    return bytes([8, int(open('$tmp/serving').read().strip() or 0)])
server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
method = grpc.unary_unary_rpc_method_handler(check)
service = grpc.method_handlers_generic_handler('grpc.health.v1.Health', {'Check': method})
server.add_generic_rpc_handlers((service,))
server.add_insecure_port('$HOST1:50051')
pair = [open('$tmp/good.' + name, 'rb').read() for name in ('key', 'pem')]
server.add_secure_port('$HOST1:50052', grpc.ssl_server_credentials([pair]))
server.start()
server.wait_for_termination()"
	local pid=$!
	for app in rpc cart rpc-tls; do wait_for 40 app_is host1 $app health healthy; done
	serving 2
	for app in rpc cart rpc-tls; do wait_for 20 fails $app "not serving"; done
	serving 1
	for app in rpc cart rpc-tls; do wait_for 20 app_is host1 $app health healthy; done
	serving ""
	wait_for 20 fails cart "gRPC status 14 nothing in the cart"
	wait_for 20 fails rpc unknown
	serving 1
	for app in rpc cart rpc-tls; do wait_for 20 app_is host1 $app health healthy; done
	# One that is asked for something else.
	sed -i 's/shop.Cart/shop.Till/' "$tmp/host1/agent.toml"
	kill -HUP "$(<"$tmp/host1/agent.pid")"
	wait_for 20 fails cart "does not know the service"
	app_is host1 rpc health healthy
	# It ends.
	kill -KILL $pid
	for app in rpc rpc-tls; do wait_for 20 app_is host1 $app health failing; done
}

# A program that reports by the C library, linked in both ways, goes on when its agent is killed, and is there again
# when that is.
programs_report() {
	local program pid
	for program in report report-static; do
		background host1 "$tmp/report.log" "$examples/$program" shop $VIP:9000/tcp "$tmp/host1/socket"
		pid=$!
		wait_for 20 app_is host1 shop registered true
		app_is host1 shop health healthy
		app host1 drain shop
		# In the state, too.
		wait_for 20 grep -q draining "$tmp/host1/state.json"
		end KILL "$tmp/host1/agent.pid"
		wait_for 20 grep -q 'does it run here?' "$tmp/report.log"
		agent_start host1
		wait_for 20 app_is host1 shop registered true
		app_is host1 shop target draining
		app host1 undo shop
		kill $pid
		wait_for 20 not app host1 show shop
	done
}

ktap_begin
topology
keys_make 1
certificates 2>"$tmp/openssl.log"
agent_start host1
ktap_run "programs report by the C library" programs_report
ktap_run "checks over TLS" checks_over_tls
ktap_run "checks by gRPC" checks_by_grpc
ktap_end
