// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checks of gRPC's health service. The servers' HTTP/2 is that of the same library; `selftests/health/test_agent` has
//! another implementation.

use super::tls::{is_bad, is_good, listen, probe, Authority};
use crate::check::serving;
use h2::server;
use http::{HeaderMap, Response};
use std::{net::SocketAddr, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

/// An answer: status, header fields, body, and fields behind it.
type Answer = (
    u16,
    &'static [(&'static str, &'static str)],
    &'static [u8],
    Option<&'static [(&'static str, &'static str)]>,
);

const SERVES: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
const OK: Option<&[(&str, &str)]> = Some(&[("grpc-status", "0")]);

fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let all = fields.iter();
    all.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect()
}

/// Answers what is asked for as it shall be with the last of these, and the service "shop" with the first.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, answers: [Answer; 2]) {
    let mut connection = server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (head, mut body) = request.into_parts();
        // This needs the connection to go on.
        let read = async {
            let mut message = Vec::new();
            while let Some(Ok(part)) = body.data().await {
                message.extend_from_slice(&part);
            }
            message
        };
        let message = tokio::select! {
            message = read => message,
            _ = std::future::poll_fn(|context| connection.poll_closed(context)) => return,
        };
        let is_right = head.uri.path() == "/grpc.health.v1.Health/Check"
            && head.method == "POST"
            && head.headers["content-type"] == "application/grpc"
            && head.headers["te"] == "trailers";
        let (status, headers, body, trailers) = match message.as_slice() {
            _ if !is_right => (400, &[][..], &[][..], None),
            b"\0\0\0\0\x06\x0a\x04shop" => answers[0],
            [0, 0, 0, 0, 0] => answers[1],
            [0, 0, 0, 1, 2, 0x0a, 0xff, 1, service @ ..] if service.len() == 255 => answers[1],
            _ => (400, &[][..], &[][..], None),
        };
        let mut response = Response::builder().status(status).body(()).unwrap();
        *response.headers_mut() = fields(headers);
        let is_end = body.is_empty() && trailers.is_none();
        let mut stream = respond.send_response(response, is_end).unwrap();
        if !body.is_empty() {
            stream.send_data(body.into(), trailers.is_none()).unwrap();
        }
        if let Some(trailers) = trailers {
            stream.send_trailers(fields(trailers)).unwrap();
        }
    }
}

fn plain(answers: [Answer; 2]) -> SocketAddr {
    listen(move |stream| serve(stream, answers))
}

const BOTH: [Answer; 2] = [
    (200, &[], &[0, 0, 0, 0, 2, 8, 2], OK),
    (200, &[("content-type", "application/grpc")], SERVES, OK),
];

#[test]
fn who_serves_is_healthy() {
    let server = plain(BOTH);
    is_good(&probe(server, "kind = \"grpc\""));
    is_good(&probe(
        server,
        "kind = \"grpc\"\nhost = \"shop.example.com\"",
    ));
    let long = format!("kind = \"grpc\"\nservice = \"{}\"", "a".repeat(255));
    is_good(&probe(server, &long));
    let shop = probe(server, "kind = \"grpc\"\nservice = \"shop\"");
    is_bad(&shop, "not serving");
    assert_eq!(shop.to_string(), format!("grpc {server}/shop"));
}

#[test]
fn everybody_else_is_not() {
    const MANY: &[u8] = &[0; 5000];
    for (answer, why) in [
        ((503, &[][..], &[][..], None), "status 503"),
        ((200, &[], SERVES, None), "no answer in gRPC"),
        (
            (200, &[], SERVES, Some(&[("grpc-status", "14")][..])),
            "gRPC status 14",
        ),
        (
            (200, &[("grpc-status", "5")], &[], None),
            "the server does not know the service",
        ),
        (
            (
                200,
                &[("grpc-status", "12"), ("grpc-message", "x")],
                &[],
                None,
            ),
            "the server has no health service",
        ),
        (
            (
                200,
                &[("grpc-status", "7"), ("grpc-message", "go away")],
                &[],
                None,
            ),
            "gRPC status 7 go away",
        ),
        (
            (200, &[("grpc-status", "0")], &[], None),
            "no answer in gRPC",
        ),
        ((200, &[], &[], OK), "not one message"),
        ((200, &[], MANY, OK), "the answer is too long"),
        ((200, &[], &[1, 0, 0, 0, 2, 8, 1], OK), "compressed"),
    ] {
        is_bad(&probe(plain([answer; 2]), "kind = \"grpc\""), why);
    }
    let other = listen(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    is_bad(&probe(other, "kind = \"grpc\""), "HTTP/2");
    let ends = listen(|stream| async move { drop(stream) });
    is_bad(&probe(ends, "kind = \"grpc\""), "HTTP/2");
}

/// A settings frame again and again is nothing that is waited for: there is an end to what is read.
#[test]
fn frames_without_end() {
    let endless = listen(|mut stream| async move {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        while stream.write_all(&settings.repeat(100)).await.is_ok() {}
    });
    is_bad(&probe(endless, "kind = \"grpc\""), "");
}

#[test]
fn over_tls() {
    let own = Authority::new();
    let tls = |protocols: &[&str]| {
        let mut config = own.server();
        config.alpn_protocols = protocols.iter().map(|&own| own.into()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        listen(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, BOTH).await;
                }
            }
        })
    };
    let ca = own.file.display();
    let lines = format!("kind = \"grpc\"\ntls = true\nca_file = \"{ca}\"");
    is_good(&probe(tls(&["h2"]), &lines));
    is_bad(&probe(tls(&[]), &lines), "does not speak HTTP/2");
    is_bad(&probe(tls(&["http/1.1"]), &lines), "TLS");
    let other = format!("{lines}\nserver_name = \"example.org\"");
    is_bad(&probe(tls(&["h2"]), &other), "not valid for name");
}

#[test]
fn messages_are_decoded() {
    let of = |message: &[u8]| {
        let len = u32::try_from(message.len()).unwrap().to_be_bytes();
        serving(&[&[0][..], &len, message].concat())
    };
    // The last one counts, and others are passed over.
    for message in [
        &[8, 1][..],
        &[8, 2, 8, 1],
        &[8, 0x81, 0],
        &[0x10, 0xff, 1, 8, 1],
        &[8, 1, 0x12, 2, 8, 2],
        &[8, 1, 0x19, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x25, 0, 0, 0, 0, 8, 1],
    ] {
        assert_eq!(of(message), Ok(()), "{message:?}");
    }
    for (message, why) in [
        (&[][..], "unknown"),
        (&[8, 0], "unknown"),
        (&[8, 2], "not serving"),
        (&[8, 3], "service unknown"),
        (&[8, 0x81, 1], "a state that is not known here"),
        (&[8], "malformed"),
        (&[8, 0x80], "malformed"),
        (&[0], "malformed"),
        (&[0x0a, 1, 1], "malformed"),
        (&[8, 1, 0x12, 2, 8], "malformed"),
        (&[8, 1, 0x19, 0], "malformed"),
        (&[8, 1, 0x13], "malformed"),
        (
            &[
                8, 1, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ],
            "malformed",
        ),
        (
            &[
                8, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1,
            ],
            "malformed",
        ),
    ] {
        let error = of(message).unwrap_err();
        assert!(error.contains(why), "{message:?}: {error}");
    }
    for answer in [
        &[][..],
        &[0, 0, 0, 0],
        &[0, 0, 0, 0, 3, 8, 1],
        &[0, 0, 0, 0, 1, 8, 1],
    ] {
        let error = serving(answer).unwrap_err();
        assert!(error.contains("not one message"), "{answer:?}: {error}");
    }
}
