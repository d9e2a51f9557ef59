// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checks over TLS, of real servers with certificates that are made here.

use super::{
    checks::{look, LONG},
    *,
};
use crate::check::{Miss, WHY_MAX};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{crypto::ring, pki_types::PrivatePkcs8KeyDer, ServerConfig};
use std::{
    fs,
    future::Future,
    net::SocketAddr,
    sync::{atomic, Arc},
    thread,
    time::SystemTime,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

const DAY: Duration = Duration::from_secs(24 * 3600);
const NAME: &str = "www.example.com";

/// A CA, whose certificate is in a file.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(super) file: PathBuf,
}

impl Authority {
    pub(super) fn new() -> Self {
        static COUNT: atomic::AtomicU32 = atomic::AtomicU32::new(0);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let count = COUNT.fetch_add(1, atomic::Ordering::Relaxed);
        let file = path().with_file_name(format!("ca-{count}.pem"));
        fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// A server whose certificate is valid between these days, counted from now.
    fn valid(&self, from: i32, to: i32) -> ServerConfig {
        let mut params =
            CertificateParams::new([NAME.to_owned(), "192.0.2.10".to_owned()]).unwrap();
        let at = |days: i32| match SystemTime::now() {
            now if days < 0 => now - DAY * days.unsigned_abs(),
            now => now + DAY * days.unsigned_abs(),
        };
        params.not_before = at(from).into();
        params.not_after = at(to).into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        server(certificate, &key)
    }

    pub(super) fn server(&self) -> ServerConfig {
        self.valid(-1, 30)
    }
}

fn server(certificate: rcgen::Certificate, key: &KeyPair) -> ServerConfig {
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap()
}

/// Has `serve` do what it does with each connection, until the tests end.
pub(super) fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    });
    address
}

/// A web server. What it has said is its end, without the word that TLS has for it.
fn web(config: ServerConfig) -> SocketAddr {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    listen(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut request = [0; 1024];
            let len = stream.read(&mut request).await.unwrap_or(0);
            let is_asked = request[..len].starts_with(b"GET /ready HTTP/1.1\r\nHost: ");
            let answer = match is_asked {
                true => &b"HTTP/1.1 200 OK\r\n\r\nall is well"[..],
                false => b"HTTP/1.1 404 Not Found\r\n\r\n",
            };
            let _ = stream.write_all(answer).await;
            let _ = stream.flush().await;
        }
    })
}

/// The check of a configuration with these lines.
pub(super) fn probe(address: SocketAddr, lines: &str) -> Probe {
    let config = check(&text(address, lines)).unwrap();
    config.apps[0].checks[0].probe.clone()
}

fn text(address: SocketAddr, lines: &str) -> String {
    format!(
        "host = 1\nlbus = [\"10.0.2.1:4771\"]\naddresses = [\"10.0.2.2\"]\n[[key]]\nid = 1\n\
         secret_file = \"health.key\"\n[[app]]\nname = \"a\"\nvip = \"192.0.2.10:443/tcp\"\n\
         [[app.check]]\naddress = \"{address}\"\n{lines}\n"
    )
}

pub(super) fn is_bad(probe: &Probe, why: &str) {
    match look(probe, LONG) {
        Some(Err(Miss::Bad(text))) if text.contains(why) => {}
        other => panic!("{other:?}, not {why}"),
    }
}

pub(super) fn is_good(probe: &Probe) {
    assert_eq!(look(probe, LONG), Some(Ok(())));
}

#[test]
fn pages_over_tls() {
    let (own, other) = (Authority::new(), Authority::new());
    let web = web(own.server());
    let https = |ca: &Authority, lines: &str| {
        let ca = ca.file.display();
        probe(
            web,
            &format!("kind = \"https\"\nca_file = \"{ca}\"\n{lines}"),
        )
    };
    // By its address, which is the VIP's, and by its name.
    is_good(&https(&own, "path = \"/ready\""));
    let named = format!("path = \"/ready\"\nhost = \"{NAME}:444\"\nbody = \"well\"");
    is_good(&https(&own, &named));
    let name = format!("path = \"/ready\"\nhost = \"other\"\nserver_name = \"{NAME}\"");
    is_good(&https(&own, &name));
    is_bad(&https(&own, ""), "status 404");
    is_good(&https(&own, "status = [404]"));
    is_bad(
        &https(&own, "path = \"/ready\"\nbody = \"ill\""),
        "not in the body",
    );
    is_bad(&https(&own, "host = \"example.com\""), "not valid for name");
    is_bad(
        &https(&other, "path = \"/ready\""),
        "invalid peer certificate",
    );
    is_good(&probe(
        web,
        "kind = \"https\"\npath = \"/ready\"\nverify = false",
    ));
    // Beside the configuration file.
    let file = own.file.file_name().unwrap().to_str().unwrap();
    let beside = format!("kind = \"https\"\npath = \"/ready\"\nca_file = \"{file}\"");
    is_good(&probe(web, &beside));
}

#[test]
fn certificates_end() {
    let own = Authority::new();
    let certificate = |config: ServerConfig, lines: &str| {
        probe(web(config), &format!("kind = \"certificate\"\n{lines}"))
    };
    let ca = format!("ca_file = \"{}\"\n", own.file.display());
    let days = |days: u64| format!("{ca}days = {days}");
    is_good(&certificate(own.valid(-1, 30), &days(29)));
    is_bad(
        &certificate(own.valid(-1, 30), &days(30)),
        "for 29 days and not for 30",
    );
    // Two weeks, if nothing is said.
    is_good(&certificate(own.valid(-1, 15), &ca));
    is_bad(
        &certificate(own.valid(-1, 14), &ca),
        "for 13 days and not for 14",
    );
    for (from, to, verified, why) in [
        (-30, -1, "certificate expired", "was valid until"),
        (1, 30, "not valid yet", "is not valid before"),
    ] {
        is_bad(&certificate(own.valid(from, to), &ca), verified);
        is_bad(&certificate(own.valid(from, to), "verify = false"), why);
        // Others do not get through, either, if they look.
        let https = format!("kind = \"https\"\npath = \"/ready\"\n{ca}");
        is_bad(&probe(web(own.valid(from, to)), &https), verified);
    }
    // One that nobody has signed, as programs make for themselves.
    let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let alone = || server(params.self_signed(&key).unwrap(), &key);
    is_good(&certificate(alone(), "verify = false"));
    is_bad(&certificate(alone(), &ca), "certificate");
}

#[test]
fn servers_that_do_not_speak_tls() {
    let own = Authority::new();
    let ca = format!("ca_file = \"{}\"", own.file.display());
    let all = |address| {
        ["https", "certificate", "grpc\"\ntls = true\n#\""]
            .map(|kind| probe(address, &format!("kind = \"{kind}\"\n{ca}")))
    };
    let plain = listen(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
    });
    // Records that are none, without end.
    let endless = listen(|mut stream| async move {
        while stream.write_all(&[0x16, 3, 3, 0, 1, 0]).await.is_ok() {}
    });
    let silent = listen(|mut stream| async move {
        while stream.read_u8().await.is_ok() {}
        std::future::pending().await
    });
    for address in [plain, endless] {
        all(address).iter().for_each(|probe| is_bad(probe, "TLS"));
    }
    for probe in all(silent) {
        assert_eq!(look(&probe, Duration::from_millis(50)), None);
    }
}

/// Within TLS, too, only so much of an answer is read.
#[test]
fn answers_without_end() {
    let own = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(own.server()));
    let (ended, end) = std::sync::mpsc::channel();
    let endless = listen(move |stream| {
        let (acceptor, ended) = (acceptor.clone(), ended.clone());
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut sent = 0;
            let answer = b"HTTP/1.1 200 OK\r\n\r\n";
            let _ = stream.write_all(answer).await;
            while stream.write_all(&[b'a'; 4096]).await.is_ok() {
                sent += 4096;
            }
            let _ = ended.send(sent);
        }
    });
    let ca = own.file.display();
    let lines = format!("kind = \"https\"\nca_file = \"{ca}\"\nbody = \"b\"");
    is_bad(&probe(endless, &lines), "not in the body");
    // What the kernels hold is on the way, too.
    assert!(end.recv().unwrap() < 64 << 20);
}

/// What a server has its certificate say is not all repeated.
#[test]
fn reasons_have_an_end() {
    let own = Authority::new();
    let names: Vec<_> = (0..500).map(|n| format!("www{n}.example.com")).collect();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(names).unwrap();
    let web = web(server(params.signed_by(&key, &own.issuer).unwrap(), &key));
    let lines = format!("kind = \"https\"\nca_file = \"{}\"", own.file.display());
    match look(&probe(web, &lines), LONG) {
        Some(Err(Miss::Bad(why))) => assert_eq!(why.chars().count(), WHY_MAX, "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn mistakes_with_tls() {
    let own = Authority::new();
    let ca = format!("ca_file = \"{}\"", own.file.display());
    let no_pem = path().with_file_name("no.pem");
    fs::write(&no_pem, "nothing\n").unwrap();
    let broken = path().with_file_name("broken.pem");
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(&broken, pem).unwrap();
    let of = |file: &PathBuf| format!("kind = \"https\"\nca_file = \"{}\"", file.display());
    for (lines, why) in [
        (
            "kind = \"https\"\ncommand = [\"/bin/true\"]",
            "f:12: a check of kind https has",
        ),
        (
            "kind = \"https\"\ndays = 3",
            "f:12: a check of kind https has",
        ),
        (
            "kind = \"http\"\nverify = false",
            "f:12: a check of kind http has",
        ),
        (
            "kind = \"certificate\"\npath = \"/\"",
            "f:12: a check of kind certificate has",
        ),
        (
            "kind = \"grpc\"\npath = \"/\"",
            "f:12: a check of kind grpc has",
        ),
        (
            "kind = \"tcp\"\ntls = true",
            "f:12: a check of kind tcp has",
        ),
        (
            "kind = \"grpc\"\nverify = false",
            "f:12: server_name, ca_file and verify need tls",
        ),
        (
            "kind = \"grpc\"\nhost = \"a b\"",
            "f:12: host is the name of the server",
        ),
        (
            &format!("kind = \"grpc\"\nservice = \"{}\"", "a".repeat(256)),
            "f:13: service has up to 255 bytes",
        ),
        (
            &format!("kind = \"certificate\"\n{ca}\ndays = 0"),
            "f:14: days is 0; choose a number from 1",
        ),
        (
            &format!("kind = \"https\"\n{ca}\nserver_name = \"a b\""),
            "f:14: server_name is the DNS name",
        ),
        (
            &format!("kind = \"https\"\n{ca}\nverify = false"),
            "f:13: verify = false trusts everybody",
        ),
        (
            "kind = \"https\"\nca_file = \"none.pem\"",
            "f:13: cannot read CA certificates in",
        ),
        (&of(&no_pem), "f:13: cannot read CA certificates in"),
        (&of(&broken), "f:13: cannot read CA certificates in"),
    ] {
        let config = text("10.0.2.2:443".parse().unwrap(), lines);
        let mistake = check(&config).err().unwrap().to_string();
        assert!(mistake.starts_with(why), "{mistake}, not {why}");
    }
}

/// Another file of CAs makes another check, which an application is looked at with after a reload.
#[test]
fn the_same_checks_are_equal() {
    let (own, other) = (Authority::new(), Authority::new());
    let lines = format!("kind = \"https\"\nca_file = \"{}\"", own.file.display());
    let probe = || probe("10.0.2.2:443".parse().unwrap(), &lines);
    let before = probe();
    assert_eq!(before, probe());
    fs::copy(&other.file, &own.file).unwrap();
    assert_ne!(before, probe());
}
