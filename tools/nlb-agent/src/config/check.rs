// SPDX-License-Identifier: MIT OR Apache-2.0

//! The checks of an application.

use crate::{
    app::Spec,
    check::{roots_in, roots_of_system, Call, Check, Get, Probe, Roots, Tls, PATH, SERVICE_MAX},
};
use http::Uri;
use nlb_daemon::config::{Mistake, Source};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};
use toml::Spanned;

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Tcp,
    Http,
    Https,
    Certificate,
    Grpc,
    Command,
}

impl Kind {
    /// What an entry of this kind may have, beside times and numbers; and that in words.
    fn keys(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Tcp => (
                &["address"],
                "a check of kind tcp has an address and nothing else; kind http has path, host, status and body",
            ),
            Self::Http => (
                &["address", "path", "host", "status", "body"],
                "a check of kind http has address, path, host, status and body; a command is of kind command, and TLS of kind https",
            ),
            Self::Https => (
                &[
                    "address", "path", "host", "status", "body", "server_name", "ca_file", "verify",
                ],
                "a check of kind https has what kind http has, server_name, ca_file and verify",
            ),
            Self::Certificate => (
                &["address", "server_name", "ca_file", "verify", "days"],
                "a check of kind certificate has address, server_name, ca_file, verify and days",
            ),
            Self::Grpc => (
                &[
                    "address", "host", "service", "tls", "server_name", "ca_file", "verify",
                ],
                "a check of kind grpc has address, host, service and tls, and with that server_name, ca_file and verify",
            ),
            Self::Command => (
                &["command"],
                "a check of kind command has a command, which knows by itself where to look",
            ),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckEntry {
    kind: Spanned<Kind>,
    address: Option<SocketAddr>,
    path: Option<String>,
    host: Option<String>,
    status: Option<Vec<u16>>,
    body: Option<String>,
    server_name: Option<Spanned<String>>,
    ca_file: Option<Spanned<PathBuf>>,
    verify: Option<bool>,
    days: Option<Spanned<u64>>,
    tls: Option<bool>,
    service: Option<Spanned<String>>,
    command: Option<Vec<String>>,
    interval_ms: Option<Spanned<u64>>,
    timeout_ms: Option<Spanned<u64>>,
    rise: Option<Spanned<u64>>,
    fall: Option<Spanned<u64>>,
}

/// By whom certificates are signed. Those of the machine are read when they are needed, once.
pub(super) struct Trust<'a> {
    folder: &'a Path,
    system: Option<Roots>,
}

impl<'a> Trust<'a> {
    /// For the configuration file at `path`, where a path that is relative begins.
    pub(super) fn new(path: &'a Path) -> Self {
        Self {
            folder: path.parent().unwrap_or(Path::new("")),
            system: None,
        }
    }

    fn roots(&mut self, file: Option<&Path>) -> Result<Roots, String> {
        if let Some(file) = file {
            let path = self.folder.join(file);
            let roots = roots_in(&path);
            return roots.map_err(|why| {
                format!("cannot read CA certificates in {}: {why}", path.display())
            });
        }
        if let Some(roots) = &self.system {
            return Ok(roots.clone());
        }
        let roots = roots_of_system().map_err(|why| {
            format!("no CA certificates of the system: {why}; install them, or set ca_file or verify = false")
        })?;
        Ok(self.system.insert(roots).clone())
    }
}

impl CheckEntry {
    fn fits(&self) -> bool {
        let (keys, _) = self.kind.get_ref().keys();
        let has = [
            ("address", self.address.is_some()),
            ("path", self.path.is_some()),
            ("host", self.host.is_some()),
            ("status", self.status.is_some()),
            ("body", self.body.is_some()),
            ("server_name", self.server_name.is_some()),
            ("ca_file", self.ca_file.is_some()),
            ("verify", self.verify.is_some()),
            ("days", self.days.is_some()),
            ("tls", self.tls.is_some()),
            ("service", self.service.is_some()),
            ("command", self.command.is_some()),
        ];
        has.iter().all(|(key, has)| !has || keys.contains(key))
    }

    pub(super) fn check(
        self,
        source: &Source,
        spec: &Spec,
        trust: &mut Trust<'_>,
    ) -> Result<Check, Mistake> {
        let wrong = |what: &str| source.mistake(Some(self.kind.span()), what);
        let kind = *self.kind.get_ref();
        let address = self.address.unwrap_or(spec.physical);
        if address.port() == 0 && kind != Kind::Command {
            let what =
                "a check needs the address and port to connect to, such as address = \"10.0.2.2:80\"";
            return Err(wrong(what));
        }
        if !self.fits() {
            return Err(wrong(kind.keys().1));
        }
        let probe = match kind {
            Kind::Tcp => Probe::Tcp(address),
            Kind::Http => Probe::Http {
                address,
                tls: None,
                get: self.get(source, spec)?,
            },
            Kind::Https => Probe::Http {
                address,
                tls: Some(self.tls(source, spec, trust, Some("http/1.1"))?),
                get: self.get(source, spec)?,
            },
            Kind::Certificate => Probe::Certificate {
                address,
                tls: self.tls(source, spec, trust, None)?,
                days: source.number("days", &self.days, 14, 1..=3650)?,
            },
            Kind::Grpc => {
                let has_tls = self.tls.unwrap_or(false);
                let has_more =
                    self.server_name.is_some() || self.ca_file.is_some() || self.verify.is_some();
                if has_more && !has_tls {
                    return Err(wrong("server_name, ca_file and verify need tls = true"));
                }
                let tls = has_tls.then(|| self.tls(source, spec, trust, Some("h2")));
                Probe::Grpc {
                    address,
                    tls: tls.transpose()?,
                    call: self.call(source, spec, has_tls)?,
                }
            }
            Kind::Command => Probe::Command(self.command(source)?),
        };
        let interval =
            source.milliseconds("interval_ms", &self.interval_ms, 1000, 50..=3_600_000)?;
        let timeout = source.milliseconds("timeout_ms", &self.timeout_ms, 1000, 10..=600_000)?;
        Ok(Check {
            probe,
            interval,
            timeout,
            rise: source.number("rise", &self.rise, 2, 1..=100)?,
            fall: source.number("fall", &self.fall, 2, 1..=100)?,
        })
    }

    /// The name by which the server is asked: the VIP, if nothing is said.
    fn host(&self, spec: &Spec) -> String {
        let vip = || match (spec.vip.port(), spec.vip) {
            (0, SocketAddr::V4(vip)) => vip.ip().to_string(),
            (0, SocketAddr::V6(vip)) => format!("[{}]", vip.ip()),
            _ => spec.vip.to_string(),
        };
        self.host.clone().unwrap_or_else(vip)
    }

    fn get(&self, source: &Source, spec: &Spec) -> Result<Get, Mistake> {
        let clean = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_graphic());
        let path = self.path.clone().unwrap_or_else(|| "/".to_owned());
        let host = self.host(spec);
        if !path.starts_with('/') || !clean(&path) || !clean(&host) {
            let what = "path begins with \"/\"; path and host are ASCII without spaces";
            return Err(source.mistake(Some(self.kind.span()), what));
        }
        Ok(Get {
            path,
            host,
            status: self.status.clone().unwrap_or_default(),
            body: self.body.clone(),
        })
    }

    fn call(&self, source: &Source, spec: &Spec, has_tls: bool) -> Result<Call, Mistake> {
        let service = self.service.as_ref();
        if let Some(own) = service.filter(|own| own.get_ref().len() > SERVICE_MAX) {
            let what = format!("service has up to {SERVICE_MAX} bytes");
            return Err(source.mistake(Some(own.span()), what));
        }
        let uri = Uri::builder()
            .scheme(if has_tls { "https" } else { "http" })
            .authority(self.host(spec))
            .path_and_query(PATH)
            .build();
        let uri = uri.map_err(|_| {
            let what = "host is the name of the server, with or without a port";
            source.mistake(Some(self.kind.span()), what)
        })?;
        let service = service.map(|own| own.get_ref().clone());
        Ok(Call {
            uri,
            service: service.unwrap_or_default(),
        })
    }

    fn tls(
        &self,
        source: &Source,
        spec: &Spec,
        trust: &mut Trust<'_>,
        protocol: Option<&str>,
    ) -> Result<Tls, Mistake> {
        let file = self.ca_file.as_ref();
        let at = |file: &Spanned<PathBuf>| file.span();
        let roots = match (self.verify, file) {
            (Some(false), Some(file)) => {
                let what = "verify = false trusts everybody; take out it or ca_file";
                return Err(source.mistake(Some(file.span()), what));
            }
            (Some(false), None) => None,
            (_, file) => {
                let roots = trust.roots(file.map(|file| file.get_ref().as_path()));
                let at = file.map_or_else(|| self.kind.span(), at);
                Some(roots.map_err(|what| source.mistake(Some(at), what))?)
            }
        };
        let named = self.server_name.as_ref();
        // A name has no port, and an address in a URL may have one.
        let host = self.host.as_deref();
        let host = host.map(|host| match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
            _ => host,
        });
        let host = host.map(|host| host.trim_matches(['[', ']']));
        let name = match (named, host) {
            (Some(named), _) => ServerName::try_from(named.get_ref().clone()),
            (None, Some(host)) => ServerName::try_from(host.to_owned()),
            (None, None) => Ok(ServerName::from(spec.vip.ip())),
        };
        let at = named.map_or_else(|| self.kind.span(), Spanned::span);
        let name = name.map_err(|_| {
            let what = "server_name is the DNS name or IP address in the server's certificate, such as \"www.example.com\"";
            source.mistake(Some(at.clone()), what)
        })?;
        Tls::new(name, roots, protocol).map_err(|error| source.mistake(Some(at), error))
    }

    fn command(&self, source: &Source) -> Result<Vec<String>, Mistake> {
        let command = self.command.clone().unwrap_or_default();
        if !command
            .first()
            .is_some_and(|program| program.starts_with('/'))
        {
            let what = "command is a list of words, the first of which is the path of a program";
            return Err(source.mistake(Some(self.kind.span()), what));
        }
        Ok(command)
    }
}
