// SPDX-License-Identifier: MIT OR Apache-2.0

//! `report NAME VIP [SOCKET]`: an application that reports how busy the processors are, as its load. The part that
//! matters is the loop.

use nlb_app::{App, Registration, DEFAULT_SOCKET};
use std::{env, fs, num::NonZero, process::ExitCode, thread, time::Duration};

/// Processes that run or want to, in percent of the processors.
fn load() -> Option<u8> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    let running: f64 = text.split(' ').next()?.parse().ok()?;
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    Some((running * 100.0 / processors as f64).min(100.0) as u8)
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let (name, vip, socket) = match arguments.as_slice() {
        [name, vip] => (name, vip, DEFAULT_SOCKET),
        [name, vip, socket] => (name, vip, socket.as_str()),
        _ => {
            eprintln!("usage: report NAME VIP [SOCKET]");
            return ExitCode::from(2);
        }
    };
    let mut app = App::new(Registration::new(name, vip)).at(socket);
    loop {
        let said = match load() {
            Some(load) => app.load(load),
            None => app.register(),
        };
        if let Err(error) = said {
            eprintln!("{error}");
        }
        thread::sleep(Duration::from_secs(5));
    }
}
