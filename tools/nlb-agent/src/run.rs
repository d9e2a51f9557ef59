// SPDX-License-Identifier: MIT OR Apache-2.0

//! The loop around the protocol's machine: sockets, clock, requests, checks and signals.

use crate::{
    check::Verdict,
    config::Config,
    host::Host,
    load::Measured,
    metrics::{self, Looks},
    state,
    systemd::{Sight, Watch, BLIND},
};
use nlb_daemon::{
    api::{self, Message, Server},
    config::tell_others,
    life,
    metrics::serve as serve_metrics,
    state::{save, Keeper},
    udp::{Buffer, Sockets, Troubles},
};
use nlb_health::{agent::AgentConfig, wire::DATAGRAM_MAX, Agent};
use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    signal::unix::{signal, SignalKind},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::{error, info};

/// So long checks may take at most before anybody is told of this life: it shall not begin with applications of which
/// nothing is known, but before those of the life before are too old.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// Requests and verdicts that may wait.
const QUEUE: usize = 256;
/// Between two versions of the state that are written: checks may find something else all the time.
const PAUSE: Duration = Duration::from_millis(100);
/// When there is nothing to wait for.
const NOTHING: Duration = Duration::from_secs(3600);

/// Runs until a signal says to end.
pub(crate) fn run(path: &Path, config: Config) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(path, config));
    // To measure may take longer than anybody waits for the next life.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(path: &Path, mut config: Config) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user = signal(SignalKind::user_defined1())?;
    let mut leave = signal(SignalKind::user_defined2())?;
    // If there is another one, it is found out before anything is touched.
    let server = Server::bind(&config.socket)?;
    let mut sockets = Sockets::bind(&config.bind)?;
    sockets.send_by(&config.multicast);
    let saved = state::Saved::load(&config.state).unwrap_or_else(|error| {
        error!("{error}");
        state::Saved::default()
    });
    let saved = saved.in_boot(&life::boot()?);
    let epoch = life::epoch(saved.epoch);
    let own = AgentConfig {
        epoch,
        ..config.agent.clone()
    };
    let agent = Agent::new(Instant::now(), own, config.keys.clone(), life::seed()?);
    let mut host = Host::new(Instant::now(), &mut config, agent, &saved, api::trusted());
    let first = host.saved(epoch);
    // As later, that is no reason to take the host out.
    let is_kept = save(&first, &config.state).map_err(not_kept).is_ok();
    host.is_dirty = !is_kept;
    let mut keeper = Keeper::new(config.state.clone(), is_kept.then_some(first), PAUSE);

    let (found, mut verdicts) = mpsc::channel(QUEUE);
    let looks = Arc::new(Looks::default());
    let (taken, mut loads) = mpsc::channel(QUEUE);
    let (seen, mut sights) = mpsc::channel(QUEUE);
    let mut watchers = watch_all(&host, &found, &looks, &taken, &seen);
    let patience = FIRST_LOOK.min(config.agent.age_limit / 4);
    let deadline = tokio::time::Instant::now() + patience;
    while !host.is_known() {
        tokio::select! {
            Some(verdict) = verdicts.recv() => host.verdict(Instant::now(), verdict),
            Some(sight) = sights.recv() => host.seen(Instant::now(), sight),
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    let fixed = config.fixed();
    let (queue, mut requests) = mpsc::channel(QUEUE);
    let (admit, admitted) = watch::channel(host.admitted());
    tokio::spawn(server.serve(admitted, queue));
    let (queue, mut scrapes) = mpsc::channel(1);
    if let Some(address) = config.metrics {
        tokio::spawn(serve_metrics(address, queue));
    }
    let started = SystemTime::now();
    info!(
        host = config.agent.host,
        watchers = watchers.len(),
        "running"
    );

    let mut buffer: Buffer = [0; DATAGRAM_MAX + 1];
    let mut is_leaving = false;
    let mut troubles = Troubles::default();
    'life: loop {
        while let Some(transmit) = host.agent.poll_transmit() {
            let sent = sockets.send(transmit.to, &transmit.datagram);
            troubles.note(transmit.to, sent);
        }
        while let Some(event) = host.agent.poll_event() {
            if !host.event(event) {
                break 'life;
            }
        }
        if std::mem::take(&mut host.is_dirty) {
            keeper.note();
            let users = host.admitted();
            admit.send_if_modified(|old| std::mem::replace(old, users.clone()) != users);
        }
        let now = Instant::now();
        keeper.begin(now, || host.saved(epoch));
        let timeouts = [host.agent.poll_timeout(), keeper.due()];
        let at = timeouts.into_iter().flatten().min();
        let at = at.unwrap_or(now + NOTHING);
        tokio::select! {
            (len, from) = sockets.receive(&mut buffer) => {
                let datagram = buffer.get(..len).unwrap_or_default();
                host.agent.handle_datagram(Instant::now(), from, datagram);
            }
            () = tokio::time::sleep_until(at.into()) => host.agent.handle_timeout(Instant::now()),
            Some(message) = requests.recv() => match message {
                Message::Line(caller, line, answer) => {
                    // Who has asked may be gone.
                    let _ = answer.send(host.request(Instant::now(), caller, &line).into());
                }
                Message::Closed(caller) => host.closed(Instant::now(), caller),
            },
            Some(scrape) = scrapes.recv() => {
                // Who has asked may be gone.
                let _ = scrape.send(metrics::page(&host, &looks, sockets.traffic(), started));
            }
            kept = keeper.ended() => if let Err(error) = kept {
                not_kept(error);
            },
            Some(measured) = loads.recv() => host.measured(Instant::now(), &measured),
            Some(verdict) = verdicts.recv() => host.verdict(Instant::now(), verdict),
            Some(sight) = sights.recv() => host.seen(Instant::now(), sight),
            // Another life follows, most likely, before this one's rows are too old; its rows replace them. To say
            // goodbye would drain all applications for it.
            _ = terminate.recv() => if !is_leaving { break },
            _ = interrupt.recv() => if !is_leaving { break },
            _ = leave.recv() => {
                is_leaving = true;
                host.agent.shut_down(Instant::now());
            }
            _ = user.recv() => info!("{}", host.agent.counters()),
            _ = hangup.recv() => match Config::load(path) {
                Ok(new) if !new.receivers().all(|to| sockets.has_family_of(to)) => {
                    error!("the old configuration stays: lbus or multicast of another address family need a restart");
                }
                Ok(mut new) => {
                    tell_others(&fixed, &new.fixed());
                    sockets.send_by(&new.multicast);
                    new.keep_place(&config);
                    host.reload(Instant::now(), new);
                    host.is_dirty = true;
                    watchers = watch_all(&host, &found, &looks, &taken, &seen);
                    info!(watchers = watchers.len(), "configuration read again");
                }
                Err(mistake) => error!("the old configuration stays: {mistake}"),
            },
        }
    }
    info!("{}", host.agent.counters());
    keeper.end(host.saved(epoch)).await
}

fn not_kept(error: io::Error) {
    error!("a restart would lose what has changed: {error}");
}

/// A task for each check, for each application whose load is measured, and for all units. They end with what is
/// returned.
fn watch_all(
    host: &Host,
    found: &mpsc::Sender<Verdict>,
    looks: &Arc<Looks>,
    taken: &mpsc::Sender<Measured>,
    seen: &mpsc::Sender<Sight>,
) -> JoinSet<()> {
    let mut watchers = JoinSet::new();
    looks.keep(host.checks().map(|(app, ..)| app).collect());
    let generation = host.generation();
    for (app, index, check, before) in host.checks() {
        let (check, app) = (check.clone(), app.to_owned());
        let results = (found.clone(), looks.clone());
        watchers.spawn(check.watch(app, index, generation, before, results));
    }
    for (app, measure) in host.measures() {
        let measure = measure.clone();
        watchers.spawn(measure.watch(app.to_owned(), generation, taken.clone()));
    }
    let units: Vec<_> = host.units().into_iter().collect();
    if !units.is_empty() {
        let watch = Watch {
            bus: None,
            units,
            generation,
            blind: BLIND,
            sights: seen.clone(),
        };
        watchers.spawn(watch.run());
    }
    watchers
}
