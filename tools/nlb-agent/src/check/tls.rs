// SPDX-License-Identifier: MIT OR Apache-2.0

//! TLS to a server that is looked at, and until when its certificate is valid.

use rustls::{
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        Resumption,
    },
    crypto::{
        ring::default_provider, verify_tls12_signature, verify_tls13_signature,
        WebPkiSupportedAlgorithms,
    },
    pki_types::{pem::PemObject, CertificateDer, ServerName, UnixTime},
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use std::{
    fs::File,
    io::Read,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{client::TlsStream, TlsConnector};
use x509_cert::{der::Decode, Certificate};

/// Largest file of certificates: those of all CAs that browsers trust take a fifth of it.
const FILE_MAX: u64 = 1024 * 1024;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The certificates by which others are verified.
pub(crate) type Roots = Arc<RootCertStore>;

/// How to speak TLS with a server.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    name: ServerName<'static>,
    /// None: the certificate may be any.
    roots: Option<Roots>,
    config: Arc<ClientConfig>,
}

/// What the configuration is made of.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        let roots = |own: &Self| own.roots.clone().map(|own| own.roots.clone());
        let protocol = |own: &Self| own.config.alpn_protocols.clone();
        self.name == other.name && roots(self) == roots(other) && protocol(self) == protocol(other)
    }
}

impl Eq for Tls {}

impl Tls {
    /// To a server of this name. Of several protocols on one port it is asked for the one that is named, as ALPN has it.
    pub(crate) fn new(
        name: ServerName<'static>,
        roots: Option<Roots>,
        protocol: Option<&str>,
    ) -> Result<Self, Error> {
        let provider = Arc::new(default_provider());
        let any = AnyCertificate(provider.signature_verification_algorithms);
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions()?;
        let config = match &roots {
            Some(roots) => config.with_root_certificates(roots.clone()),
            None => config
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(any)),
        };
        let mut config = config.with_no_client_auth();
        // Each look sees the certificate.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = protocol.map(|name| name.into()).into_iter().collect();
        Ok(Self {
            name,
            roots,
            config: Arc::new(config),
        })
    }

    /// Shakes hands, which verifies the certificate.
    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<TlsStream<S>, String> {
        let connector = TlsConnector::from(self.config.clone());
        let connected = connector.connect(self.name.clone(), stream).await;
        let stream = connected.map_err(|error| format!("TLS: {error}"))?;
        // A server may ignore it, but then speaks what everybody spoke before.
        match self.config.alpn_protocols.first() {
            Some(wanted)
                if wanted == b"h2" && stream.get_ref().1.alpn_protocol() != Some(b"h2") =>
            {
                Err("TLS: the server does not speak HTTP/2".to_owned())
            }
            _ => Ok(stream),
        }
    }
}

/// Whether the server's certificate is valid for so many days more.
pub(super) fn is_valid_for<S>(stream: &TlsStream<S>, days: u64) -> Result<(), String> {
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates
        .and_then(<[_]>::first)
        .ok_or("no certificate")?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    is_valid_at(certificate, now.unwrap_or_default(), days)
}

/// The same, `now` being the time since 1970.
fn is_valid_at(certificate: &[u8], now: Duration, days: u64) -> Result<(), String> {
    let certificate = Certificate::from_der(certificate)
        .map_err(|error| format!("the certificate is not understood: {error}"))?;
    let validity = certificate.tbs_certificate().validity();
    let (from, to) = (validity.not_before, validity.not_after);
    if from.to_unix_duration() > now {
        return Err(format!("the certificate is not valid before {from}"));
    }
    let left = to.to_unix_duration().checked_sub(now);
    let left = left.ok_or_else(|| format!("the certificate was valid until {to}"))?;
    if left < DAY * u32::try_from(days).unwrap_or(u32::MAX) {
        let whole = left.as_secs() / DAY.as_secs();
        return Err(format!(
            "the certificate is valid until {to}, for {whole} days and not for {days}"
        ));
    }
    Ok(())
}

/// The CA certificates of a file in PEM.
pub(crate) fn roots_in(path: &Path) -> Result<Roots, String> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut text));
    let len = read.map_err(|error| error.to_string())?;
    if len as u64 > FILE_MAX {
        return Err(format!("it has more than {FILE_MAX} bytes"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        let added = roots.add(certificate);
        added.map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in PEM".to_owned());
    }
    Ok(Arc::new(roots))
}

/// The CA certificates that the machine trusts.
pub(crate) fn roots_of_system() -> Result<Roots, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // One that is not understood does not keep the others from being used, as everywhere.
    let (count, _) = roots.add_parsable_certificates(found.certs);
    if count == 0 {
        let why = found.errors.first().map(ToString::to_string);
        return Err(why.unwrap_or_else(|| "the machine has none".to_owned()));
    }
    Ok(Arc::new(roots))
}

/// Takes every certificate, and verifies that the server has its key.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
