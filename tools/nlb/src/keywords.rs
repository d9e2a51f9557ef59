// SPDX-License-Identifier: MIT OR Apache-2.0

//! Keywords without dashes: `host 10.0.2.2 weight 3` is read as `--host 10.0.2.2 --weight 3`.

use std::ffi::{
    OsStr,
    OsString, //
};

use clap::{
    Arg,
    Command, //
};

/// Put dashes before the keywords of the command that `args` name.
pub(crate) fn expand(
    root: &mut Command,
    args: impl IntoIterator<Item = OsString>,
) -> Vec<OsString> {
    // Makes the global options known to the subcommands.
    root.build();
    let mut args = args.into_iter();
    let mut out: Vec<_> = args.next().into_iter().collect();
    let mut command = &*root;
    while let Some(arg) = args.next() {
        let text = arg.to_str().unwrap_or_default();
        let value_follows = if text == "--" {
            out.push(arg);
            out.extend(args);
            return out;
        } else if text.starts_with('-') {
            let follows = option(command, text).is_some_and(takes_value);
            out.push(arg);
            follows
        } else if command.has_subcommands() {
            let next = subcommand(command, text);
            out.push(arg);
            match next {
                Some(next) if next.get_name() != "help" => command = next,
                // Help, or an error: the parser sees to it.
                _ => {
                    out.extend(args);
                    return out;
                }
            }
            false
        } else if let Some(keyword) = long(command, text) {
            let mut dashed = OsString::from("--");
            dashed.push(&arg);
            out.push(dashed);
            takes_value(keyword)
        } else {
            out.push(arg);
            false
        };
        if value_follows {
            out.extend(args.next());
        }
    }
    out
}

/// The subcommand that a name, an alias or the beginning of just one name stands for.
fn subcommand<'a>(command: &'a Command, text: &str) -> Option<&'a Command> {
    if let Some(exact) = command.find_subcommand(OsStr::new(text)) {
        return Some(exact);
    }
    let begins = |sub: &&Command| {
        sub.get_name_and_visible_aliases()
            .iter()
            .any(|name| name.starts_with(text))
    };
    let mut matches = command.get_subcommands().filter(begins);
    let first = matches.next()?;
    matches.next().is_none().then_some(first)
}

/// The option with this long name.
fn long<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let mut arguments = command.get_arguments().filter(|arg| !arg.is_positional());
    arguments.find(|arg| arg.get_long() == Some(name) && !arg.is_global_set())
}

/// The option whose value may follow `text`, which begins with a dash.
fn option<'a>(command: &'a Command, text: &str) -> Option<&'a Arg> {
    let mut arguments = command.get_arguments();
    match text.strip_prefix("--") {
        Some(name) => arguments.find(|arg| arg.get_long() == Some(name)),
        // Of several short options in one argument, the last one.
        None => {
            let short = text.chars().last();
            arguments.find(|arg| arg.get_short() == short)
        }
    }
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

#[cfg(test)]
mod tests {
    use clap::{
        CommandFactory,
        Parser, //
    };

    use super::*;
    use crate::cli::Cli;

    fn expanded(line: &str) -> String {
        let args = line.split(' ').map(OsString::from);
        let out = expand(&mut Cli::command(), args);
        let out: Vec<_> = out.iter().map(|arg| arg.to_str().unwrap()).collect();
        out.join(" ")
    }

    #[test]
    fn keywords_get_their_dashes() {
        for (line, result) in [
            (
                "nlb endpoint add 192.0.2.10:80/tcp host 10.0.2.2 weight 3",
                "nlb endpoint add 192.0.2.10:80/tcp --host 10.0.2.2 --weight 3",
            ),
            (
                "nlb -j -n host e a x host y",
                "nlb -j -n host e a x --host y",
            ),
            ("nlb -jn host e a x host y", "nlb -jn host e a x --host y"),
            ("nlb mapping show side host", "nlb mapping show --side host"),
            ("nlb map s side forwarder", "nlb map s --side forwarder"),
            ("nlb endpoint add x --host y", "nlb endpoint add x --host y"),
            ("nlb endpoint add -- host y", "nlb endpoint add -- host y"),
            ("nlb monitor routes count 3", "nlb monitor routes --count 3"),
            ("nlb stats show nonzero fwd", "nlb stats show --nonzero fwd"),
            ("nlb help endpoint", "nlb help endpoint"),
            ("nlb nothing host", "nlb nothing host"),
            ("nlb endpoint add x host", "nlb endpoint add x --host"),
        ] {
            assert_eq!(expanded(line), result);
        }
    }

    #[test]
    fn lines_of_the_documentation_are_understood() {
        for line in [
            "nlb service add 192.0.2.10:80/tcp mode peek",
            "nlb service add 192.0.2.10:80/tcp mode peek classifier 8080",
            "nlb service add [2001:db8::1]:80",
            "nlb service add 192.0.2.10:80 scheduler maglev",
            "nlb service add 192.0.2.10:80 scheduler wlc affinity 300 prefix 24",
            "nlb service add 192.0.2.10:8000-8999/tcp",
            "nlb service add [2001:db8::1]:*/udp affinity 300",
            "nlb service set 192.0.2.10:80 scheduler wlc",
            "nlb service set 192.0.2.10:80 affinity 0",
            "nlb service set 192.0.2.10:80 slow-start 60",
            "nlb service set 192.0.2.10:80 idle-timeout 3600 fin-timeout 30 syn-timeout 10",
            "nlb service set [2001:db8::1]:80 affinity 300 prefix 64",
            "nlb service add 192.0.2.10:53/udp scheduler rr one-packet yes",
            "nlb service set 192.0.2.10:53/udp one-packet no",
            "nlb allotment set 192.0.2.10:80 scheme tokens age 5000 share 10.0.2.2=40 share 10.0.3.2=35",
            "nlb allotment set [2001:db8::1]:53/udp scheme percentages age 1000 share 2001:db8:2::2=100",
            "nlb allotment del 192.0.2.10:80",
            "nlb allotment show",
            "nlb rule add drop from 198.51.100.0/24",
            "nlb rule add reject from 198.51.100.7 to 192.0.2.10:8000-8999/tcp priority 5",
            "nlb rule add accept priority 1 to [2001:db8::1]:*/udp",
            "nlb rule add drop from any",
            "nlb rule add drop to 2001:db8::1 proto udp",
            "nlb rule del priority 10",
            "nlb rule show priority 10",
            "nlb rule",
            "nlb rule flush",
            "nlb service ls",
            "nlb service zero",
            "nlb service zero 192.0.2.10:80/tcp",
            "nlb service",
            "nlb -j -p -n lbu service show 192.0.2.10:80/tcp",
            "nlb endpoint add 192.0.2.10:80/tcp host 10.0.2.2 weight 3 source 10.0.1.1",
            "nlb endpoint add 192.0.2.10:80/tcp host 10.0.2.2 via ipip weight 3",
            "nlb endpoint add 192.0.2.10:80/tcp host 10.0.2.2 via half-nat port 8080",
            "nlb endpoint add 192.0.2.10:80/tcp host 10.0.2.2 via gre tun-csum yes",
            "nlb endpoint add 192.0.2.10:80/tcp host 10.0.2.2 via gue tun-port 5555 tun-csum no weight 3",
            "nlb endpoint set 192.0.2.10:80/tcp host 10.0.2.2 weight 0",
            "nlb endpoint set 192.0.2.10:80/tcp host 10.0.2.2 state draining",
            "nlb endpoint set 192.0.2.10:80/tcp host 10.0.2.2 state active weight 3",
            "nlb endpoint add 192.0.2.10:80/tcp host 10.0.2.2 max-routes 1000 resume-routes 750 backup yes",
            "nlb endpoint set 192.0.2.10:80/tcp host 10.0.2.2 max-routes 0",
            "nlb endpoint set 192.0.2.10:80/tcp host 10.0.2.2 backup no",
            "nlb endpoint show 192.0.2.10:80/tcp host 10.0.2.2",
            "nlb route add 192.0.2.10:80/tcp client 198.51.100.7:40000 host 10.0.2.2",
            "nlb route show client 198.51.100.7:40000",
            "nlb route flush host 10.0.2.2",
            "nlb service set 192.0.2.10:80 miss-timeout 200",
            "nlb miss set 192.0.2.10:80 client 198.51.100.7:40000 state drop",
            "nlb miss",
            "nlb monitor misses",
            "nlb stats show fwd nonzero percpu",
            "nlb route flush 192.0.2.10:80/tcp from 198.51.100.0/24",
            "nlb route show from 2001:db8::/32",
            "nlb forwarder add 10.0.1.1",
            "nlb mapping add forwarder 10.0.2.1 id 0xee480001 client 1.2.3.4:5 vip 1.2.3.4:80 proto tcp",
            "nlb mapping show side host id 0xee480001 forwarder 10.0.1.1",
            "nlb peer add 10.0.2.2 port 4771 unauthenticated",
            "nlb peer add 10.0.2.2 key 1 secret-file /etc/nlb/secret",
            "nlb peer add 10.0.2.2 key 1 recv-id 2 algorithm aes-128-cmac secret-file -",
            "nlb peer key",
            "nlb peer key add 10.0.2.2 id 2 secret-file /etc/nlb/secret2",
            "nlb peer key use 10.0.2.2 id 2",
            "nlb peer key del 10.0.2.2 id 255",
            "nlb peer key show 10.0.2.2",
            "nlb migration start pid 1234 fd 5 to 10.0.2.2 timeout 2000",
            "nlb migration start client 10.0.1.2:40000 vip 192.0.2.10:80 to 10.0.2.2",
            "nlb migration start client 10.0.1.2:40000 vip 192.0.2.10:80 to 10.0.2.2 read all",
            "nlb migration start pid 1234 fd 5 to 10.0.2.2 read 512",
            "nlb keep add 192.0.2.10:80 bytes 4096",
            "nlb keep del [2001:db8::1]:80",
            "nlb keep show 192.0.2.10:80",
            "nlb migration drain from 192.0.2.10:80 to 10.0.2.2 to 10.0.3.2 jobs 64",
            "nlb migration drain from 192.0.2.10:80 to 10.0.2.2 jobs 8192",
            "nlb migration drain from 0.0.0.0:80 to 10.0.2.2 filter client=10.0.0.0/8,192.0.2.1",
            "nlb migration drain from 0.0.0.0:80 to 10.0.2.2 filter client=10.0.0.0/8 filter client-port=80,1024-2047",
            "nlb migration drain --from 192.0.2.10:80 --to 10.0.2.2 timeout 500 retry 0",
            "nlb migration show 7 role target",
            "nlb stats show tunnel -j",
            "nlb monitor services routes",
            "nlb save",
            "nlb save secret-file /etc/nlb.key",
            "nlb apply lb.toml",
            "nlb apply - dry-run",
            "nlb trace 198.51.100.7:40000 192.0.2.10:80/tcp",
            "nlb -j trace [2001:db8::7]:40000 [2001:db8::1]:53/udp",
            "nlb top",
            "nlb top interval 0.5 sort bytes once",
            "nlb doctor interval 2",
            "nlb app",
            "nlb app register shop vip 192.0.2.10:80/tcp physical 10.0.2.2:8080 protocol http detail /shop/* capacity 50",
            "nlb app register shop vip [2001:db8::1]:*/udp health unknown socket /run/a",
            "nlb app unregister shop",
            "nlb app health shop failing",
            "nlb app load shop 37",
            "nlb app capacity shop 99",
            "nlb app drain shop state inactive wait",
            "nlb app undo shop socket /run/a",
            "nlb app show shop",
            "nlb health",
            "nlb -j health",
            "nlb health watch interval 2 socket /run/b",
            "nlb health events",
            "nlb -j health events count 3 socket /run/b",
        ] {
            let args = line.split(' ').map(OsString::from);
            let out = expand(&mut Cli::command(), args);
            if let Err(error) = Cli::try_parse_from(out) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn wrong_lines_are_not() {
        for line in [
            "nlb",
            "nlb s",
            "nlb service add",
            "nlb rule add drop",
            "nlb rule add from 10.0.0.0/8",
            "nlb rule add deny from 10.0.0.0/8",
            "nlb rule add drop from 10.0.0.0/33",
            "nlb rule add drop to any",
            "nlb rule del 10",
            "nlb rule del",
            "nlb service add 192.0.2.10",
            "nlb service add 192.0.2.10:8999-8000",
            "nlb service add 192.0.2.10:80 mode l7",
            "nlb service add 192.0.2.10:80 scheduler wlb",
            "nlb service set 192.0.2.10:80",
            "nlb service set 192.0.2.10:80 affinity -1",
            "nlb service set 192.0.2.10:80 affinity",
            "nlb service set 192.0.2.10:80 one-packet maybe",
            "nlb service add 192.0.2.10:80 mode peek mode l4",
            "nlb endpoint add 192.0.2.10:80 weight 3",
            "nlb endpoint add 192.0.2.10:80 host 10.0.2.2 via mule",
            "nlb endpoint add 192.0.2.10:80 host 10.0.2.2 via gre tun-csum maybe",
            "nlb endpoint add 192.0.2.10:80 host 10.0.2.2 via gue tun-port 65536",
            "nlb endpoint set 192.0.2.10:80 host 10.0.2.2 weight -1",
            "nlb endpoint set 192.0.2.10:80 host 10.0.2.2",
            "nlb endpoint set 192.0.2.10:80 host 10.0.2.2 state down",
            "nlb endpoint set 192.0.2.10:80 host 10.0.2.2 backup maybe",
            "nlb endpoint set 192.0.2.10:80 host 10.0.2.2 max-routes",
            "nlb endpoint show host 10.0.2.2",
            "nlb peer add 10.0.2.2",
            "nlb peer add 10.0.2.2 key 1",
            "nlb peer add 10.0.2.2 secret-file f",
            "nlb peer add 10.0.2.2 key 256 secret-file f",
            "nlb peer add 10.0.2.2 unauthenticated key 1 secret-file f",
            "nlb peer add 10.0.2.2 unauthenticated algorithm hmac-sha1",
            "nlb peer add 10.0.2.2 key 1 secret-file f algorithm md5",
            "nlb peer key add 10.0.2.2 secret-file f",
            "nlb peer key add 10.0.2.2 id 2",
            "nlb peer key use 10.0.2.2",
            "nlb migration show role target",
            "nlb migration start pid 0 fd 1 to 10.0.2.2",
            "nlb migration start to 10.0.2.2",
            "nlb migration start pid 1 to 10.0.2.2",
            "nlb migration start client 10.0.1.2:40000 to 10.0.2.2",
            "nlb migration start pid 1 fd 1 client 10.0.1.2:4 vip 192.0.2.10:80 to 10.0.2.2",
            "nlb migration start pid 1 fd 1 to 10.0.2.2 read 0",
            "nlb keep add 192.0.2.10:80",
            "nlb keep add 192.0.2.10:80 bytes 0",
            "nlb keep add 192.0.2.10:80 bytes 32768",
            "nlb migration drain from 192.0.2.10:80",
            "nlb migration drain from 192.0.2.10:80 to 10.0.2.2 jobs 0",
            "nlb migration drain from 192.0.2.10:80 to 10.0.2.2 jobs 8193",
            "nlb migration drain from 192.0.2.10:80 to 10.0.2.2 filter port=80",
            "nlb stats show kernel",
            "nlb apply",
            "nlb allotment set 192.0.2.10:80 scheme tokens age 5000",
            "nlb allotment set 192.0.2.10:80 scheme tokens age 5000 share 10.0.2.2",
            "nlb trace 198.51.100.7 192.0.2.10:80",
            "nlb trace 198.51.100.7:40000",
            "nlb top interval 0",
            "nlb top sort size",
            "nlb doctor interval nan",
            "nlb app register shop",
            "nlb app register vip 192.0.2.10:80/tcp",
            "nlb app health shop",
            "nlb app health shop sick",
            "nlb app load shop 101",
            "nlb app capacity shop 100",
            "nlb app drain shop state active",
            "nlb health show",
            "nlb health watch events",
            "nlb health count 3",
            "nlb health events count some",
        ] {
            let args = line.split(' ').map(OsString::from);
            let out = expand(&mut Cli::command(), args);
            assert!(Cli::try_parse_from(out).is_err(), "{line}");
        }
    }
}
