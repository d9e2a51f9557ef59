// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lines for those who want to be told of all that happens. Each has a queue with a bound: who reads too slowly loses
//! what comes when it is full, and is told how much that was. Nobody waits for any of them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Bytes of lines that may wait for one who reads: what happens at once when hundreds of hosts go has room.
pub const WAITING_MAX: usize = 4 << 20;
/// How many may be told at a time.
pub const WATCHERS_MAX: usize = 16;

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Arc<str>>,
    /// Of all of them.
    bytes: usize,
    /// What came when it was full, and since.
    lost: u64,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    more: Notify,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells all who watch.
#[derive(Debug, Default)]
pub struct Feed {
    watchers: Vec<Arc<Shared>>,
}

impl Feed {
    /// One more watches; `None` if there are [`WATCHERS_MAX`] already.
    pub fn watch(&mut self) -> Option<Watch> {
        self.forget();
        if self.watchers.len() >= WATCHERS_MAX {
            return None;
        }
        let shared = Arc::new(Shared::default());
        self.watchers.push(shared.clone());
        Some(Watch { shared })
    }

    /// Whether anybody watches.
    pub fn is_watched(&mut self) -> bool {
        self.forget();
        !self.watchers.is_empty()
    }

    /// Something has happened. `line` is an object of JSON, without a newline.
    pub fn tell(&mut self, line: &str) {
        self.forget();
        let line: Arc<str> = line.into();
        for watcher in &self.watchers {
            let mut queue = watcher.queue();
            // What is lost is in one piece, so that it is known where.
            if queue.lost > 0 || queue.bytes + line.len() > WAITING_MAX {
                queue.lost += 1;
            } else {
                queue.bytes += line.len();
                queue.lines.push_back(line.clone());
            }
            drop(queue);
            watcher.more.notify_one();
        }
    }

    /// Those that have gone.
    fn forget(&mut self) {
        self.watchers
            .retain(|watcher| Arc::strong_count(watcher) > 1);
    }
}

/// What one who watches is told. It ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
}

impl Watch {
    /// The next line; where some were lost, one that says how many: `{"event":"lost","count":N}`.
    pub async fn next(&mut self) -> Arc<str> {
        loop {
            {
                let mut queue = self.shared.queue();
                if let Some(line) = queue.lines.pop_front() {
                    queue.bytes -= line.len();
                    return line;
                }
                let lost = std::mem::take(&mut queue.lost);
                if lost > 0 {
                    return format!("{{\"event\":\"lost\",\"count\":{lost}}}").into();
                }
            }
            self.shared.more.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    /// What there is to be told now.
    fn told(watch: &mut Watch) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let next = std::pin::pin!(watch.next());
            let Poll::Ready(line) = next.poll(&mut Context::from_waker(Waker::noop())) else {
                return lines;
            };
            lines.push(line.to_string());
        }
    }

    #[test]
    fn who_is_slow_loses_lines_and_is_told_so() {
        let mut feed = Feed::default();
        assert!(!feed.is_watched());
        feed.tell("nobody");
        let (mut slow, mut quick) = (feed.watch().unwrap(), feed.watch().unwrap());
        assert_eq!(told(&mut slow), [""; 0]);
        let long = "x".repeat(WAITING_MAX / 4);
        for number in 0..7 {
            let line = format!("{number}{}", &long[1..]);
            feed.tell(&line);
            assert_eq!(told(&mut quick), [line]);
        }
        // After a loss nothing is told before it was said where it is, although there is room.
        feed.tell("late");
        let lines = told(&mut slow);
        let begins: Vec<_> = lines.iter().map(|line| &line[..1]).collect();
        assert_eq!(begins, ["0", "1", "2", "3", "{"]);
        assert_eq!(lines[4], "{\"event\":\"lost\",\"count\":4}");
        assert_eq!(slow.shared.queue().bytes, 0);
        feed.tell("again");
        assert_eq!(told(&mut slow), ["again"]);
        assert_eq!(told(&mut quick), ["late", "again"]);
        drop((slow, quick));
        assert!(!feed.is_watched());
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let mut feed = Feed::default();
        let mut all: Vec<_> = (0..WATCHERS_MAX).map(|_| feed.watch().unwrap()).collect();
        assert!(feed.watch().is_none());
        all.pop();
        assert!(feed.watch().is_some());
    }
}
