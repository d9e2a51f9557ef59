// SPDX-License-Identifier: MIT OR Apache-2.0

//! Application load "is a relatively slowly-changing or averaged value that can be smoothed with a
//! hysteresis-inducing mechanism", and is sent "approximately one to four times a minute" (at FIG. 13A).

use std::time::{
    Duration,
    Instant, //
};

/// How load is smoothed, and how often it is told.
#[derive(Clone, Copy, Debug)]
pub struct LoadConfig {
    /// Of the exponential average: after so long a step of the load shows to 63 %.
    pub time_constant: Duration,
    /// A difference of so many percent is told after [`Self::min_interval`].
    pub threshold: u8,
    /// Between two values at least; 15 s are four times a minute.
    pub min_interval: Duration,
    /// Any difference is told after it.
    pub max_interval: Duration,
}

impl Default for LoadConfig {
    fn default() -> Self {
        Self {
            time_constant: Duration::from_secs(10),
            threshold: 5,
            min_interval: Duration::from_secs(15),
            max_interval: Duration::from_secs(60),
        }
    }
}

/// The load of one application.
#[derive(Clone, Copy, Debug, Default)]
pub struct Smoother {
    // The average, and when it was that.
    average: Option<(f64, Instant)>,
    told: Option<(u8, Instant)>,
}

impl Smoother {
    /// The application has said, or was measured at, `load` percent; more than 100 is 100.
    pub fn sample(&mut self, config: &LoadConfig, now: Instant, load: u8) {
        let load = f64::from(load.min(crate::row::LOAD_MAX));
        let average = match self.average {
            None => load,
            Some((average, since)) => {
                let passed = now.saturating_duration_since(since).as_secs_f64();
                let constant = config.time_constant.as_secs_f64();
                let weight = if constant > 0.0 {
                    1.0 - (-passed / constant).exp()
                } else {
                    1.0
                };
                average + weight * (load - average)
            }
        };
        self.average = Some((average, now));
    }

    /// When there is something to be told, if nothing new comes.
    pub fn due(&self, config: &LoadConfig) -> Option<Instant> {
        let (average, since) = self.average?;
        let Some((told, at)) = self.told else {
            return Some(since);
        };
        if rounded(average) == told {
            return None;
        }
        let far = (average - f64::from(told)).abs() >= f64::from(config.threshold);
        Some(
            at + if far {
                config.min_interval
            } else {
                config.max_interval
            },
        )
    }

    /// The load to be told now, if it is time.
    pub fn tell(&mut self, config: &LoadConfig, now: Instant) -> Option<u8> {
        if self.due(config)? > now {
            return None;
        }
        let load = rounded(self.average?.0);
        self.told = Some((load, now));
        Some(load)
    }
}

/// An average of values up to 100 is one, too.
fn rounded(average: f64) -> u8 {
    average.round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spikes_are_smoothed_and_told_rarely() {
        let config = LoadConfig::default();
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut load = Smoother::default();
        assert_eq!(load.due(&config), None);
        load.sample(&config, start, 200);
        assert_eq!(load.tell(&config, start), Some(100));
        // Nothing new is nothing to tell.
        load.sample(&config, at(5), 100);
        assert_eq!(load.due(&config), None);
        // A step is seen at once, and told after the interval.
        load.sample(&config, at(10), 0);
        assert_eq!(load.due(&config), Some(at(15)));
        assert_eq!(load.tell(&config, at(14)), None);
        assert_eq!(load.tell(&config, at(15)), Some(61));
        // A small difference waits for the long one.
        load.sample(&config, at(16), 61);
        load.sample(&config, at(17), 90);
        assert_eq!(load.due(&config), Some(at(75)));
        assert!(load.tell(&config, at(75)).is_some());
    }
}
