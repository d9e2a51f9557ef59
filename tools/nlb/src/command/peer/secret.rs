// SPDX-License-Identifier: MIT OR Apache-2.0

//! Secrets of keys, from files.

use std::{
    fs::File,
    io::{
        self,
        Read, //
    },
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::failure::Failure;

/// Fewest bytes of a secret: a shorter one can be guessed.
const MIN: usize = 16;
/// Most bytes of a secret, `TCP_AO_MAXKEYLEN`.
const MAX: usize = 80;

/// The secret in a file, or in what comes from standard input if the file is called `-`.
///
/// A newline at the end is not part of it.
pub(in crate::command) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| Failure::Text(format!("{}: {error}", path.display()));
    if path == Path::new("-") {
        return parse(&bytes(io::stdin()).map_err(failed)?, "standard input");
    }
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    if mode & 0o170_000 == 0o100_000 && mode & 0o077 != 0 {
        eprintln!("Warning: {} can be read by others", path.display());
    }
    let bytes = bytes(file).map_err(failed)?;
    parse(&bytes, &path.display().to_string())
}

/// Whether there is a secret in a file.
pub(in crate::command) fn check(path: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Text(format!("{}: {error}", path.display()));
    let bytes = File::open(path).and_then(bytes).map_err(failed)?;
    parse(&bytes, &path.display().to_string()).map(drop)
}

/// All bytes of `source`, or as many as show that they are too many.
fn bytes(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(MAX + 2);
    source.take(MAX as u64 + 2).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(bytes: &[u8], name: &str) -> Result<Vec<u8>, Failure> {
    let secret = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if !(MIN..=MAX).contains(&secret.len()) {
        return Err(Failure::Text(format!(
            "{name}: not a secret, which has {MIN} to {MAX} bytes"
        )));
    }
    Ok(secret.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        for (bytes, len) in [
            (&[b'a'; 16][..], Some(16)),
            (&[b'a'; 80], Some(80)),
            (&[b'\n'; 17], Some(16)),
            (&[b'a'; 15], None),
            (&[b'a'; 81], None),
            (b"fifteen letters\n", None),
            (b"", None),
        ] {
            assert_eq!(parse(bytes, "f").ok().map(|secret| secret.len()), len);
        }
    }

    #[test]
    fn no_more_is_read_than_needed() {
        assert_eq!(bytes(io::repeat(b'a')).unwrap().len(), MAX + 2);
        assert_eq!(bytes(&b"abc"[..]).unwrap(), b"abc");
    }

    #[test]
    fn a_failure_does_not_show_the_secret() {
        let Err(failure) = parse(b"short secret", "file") else {
            panic!("too short");
        };
        assert!(!failure.text().contains("short secret"));
    }
}
