// SPDX-License-Identifier: MIT OR Apache-2.0

//! A terminal that is drawn on and asked for keys, with the control sequences that all have
//! (ECMA-48 and the alternate screen of xterm).

use std::{
    io::{
        self,
        Write, //
    },
    os::fd::AsFd,
    time::Duration,
};

use rustix::{
    event::{
        poll,
        PollFd,
        PollFlags,
        Timespec, //
    },
    io::{
        read,
        Errno, //
    },
    termios::{
        tcgetattr,
        tcgetwinsize,
        tcsetattr,
        OptionalActions,
        Termios, //
    },
};

const CTRL_C: u8 = 3;
const ESCAPE: u8 = 27;

/// What somebody pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Nothing, or nothing of interest.
    None,
    Letter(char),
    /// Ctrl-C, or the terminal is gone.
    End,
}

/// The terminal, which becomes what it was when this is dropped.
pub(super) struct Screen {
    before: Termios,
}

impl Screen {
    /// Take over the terminal of standard input and output.
    pub(super) fn open() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
        let screen = Self { before };
        // The alternate screen, without cursor.
        print("\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    /// Draw a heading and lines, as much of them as there is room for.
    pub(super) fn show(&self, head: &str, text: &str) -> io::Result<()> {
        let (rows, columns) = match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
            _ => (24, 80),
        };
        print(&drawn(head, text, rows.into(), columns.into()))
    }

    /// Wait for a key.
    pub(super) fn key(&self, timeout: Duration) -> io::Result<Key> {
        let stdin = io::stdin();
        let timeout = Timespec::try_from(timeout).ok();
        let mut fds = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            // A signal: who waits looks why.
            Ok(0) | Err(Errno::INTR) => return Ok(Key::None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 64];
        match read(&stdin, &mut bytes) {
            Ok(len) => Ok(pressed(bytes.get(..len).unwrap_or_default())),
            Err(Errno::INTR) => Ok(Key::None),
            // The terminal hung up.
            Err(_) => Ok(Key::End),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to be done about it.
        let _ = print("\x1b[?25h\x1b[?1049l");
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The key that sent these bytes.
fn pressed(bytes: &[u8]) -> Key {
    match bytes.first() {
        None | Some(&CTRL_C) => Key::End,
        // An arrow, or another one that is none of ours.
        Some(&ESCAPE) => Key::None,
        Some(byte) => Key::Letter(char::from(*byte)),
    }
}

/// The bytes that draw it all, over what was there.
fn drawn(head: &str, text: &str, rows: usize, columns: usize) -> String {
    let clipped = |line: &str| line.chars().take(columns).collect::<String>();
    // In reverse.
    let mut out = format!("\x1b[H\x1b[7m{}\x1b[m\x1b[K", clipped(head));
    for line in text.lines().take(rows.saturating_sub(1)) {
        out.push_str(&format!("\r\n{}\x1b[K", clipped(line)));
    }
    out.push_str("\x1b[J");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for (bytes, key) in [
            (&b"q"[..], Key::Letter('q')),
            (b"b and more", Key::Letter('b')),
            (b"\x1b[A", Key::None),
            (b"\x03", Key::End),
            (b"", Key::End),
        ] {
            assert_eq!(pressed(bytes), key);
        }
    }

    #[test]
    fn nothing_is_drawn_beside_the_screen() {
        assert_eq!(
            drawn("head", "line 1\nline 2\nline 3\n", 3, 5),
            "\x1b[H\x1b[7mhead\x1b[m\x1b[K\r\nline \x1b[K\r\nline \x1b[K\x1b[J"
        );
    }
}
