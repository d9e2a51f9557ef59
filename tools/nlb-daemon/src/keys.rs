// SPDX-License-Identifier: MIT OR Apache-2.0

//! The keys of health and load, whose secrets are in files: `[[key]]` with `id` and `secret_file`. The first one is
//! sent with, all are accepted.

use crate::config::{Mistake, Source};
use nlb_health::seal::{Keys, SECRET_MAX};
use serde::Deserialize;
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use toml::Spanned;
use zeroize::Zeroizing;

/// A key as it is in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    id: Spanned<u8>,
    secret_file: Spanned<PathBuf>,
}

/// Reads the secrets. A relative path begins where systemd has put credentials, else at the configuration file
/// `config`.
pub fn load(source: &Source, entries: &[KeyEntry], config: &Path) -> Result<Keys, Mistake> {
    let base = match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(directory) => PathBuf::from(directory),
        None => config.parent().unwrap_or(Path::new("")).to_owned(),
    };
    let mut keys: Option<Keys> = None;
    for entry in entries {
        let path = base.join(entry.secret_file.get_ref());
        let secret = read(&path).map_err(|error| {
            let what = format!("cannot read the secret in {}: {error}", path.display());
            source.mistake(Some(entry.secret_file.span()), what)
        })?;
        let id = *entry.id.get_ref();
        let added = match &mut keys {
            Some(keys) => keys.add(id, &secret),
            none => Keys::new(id, &secret).map(|first| *none = Some(first)),
        };
        added.map_err(|error| {
            let what = format!("key {id} from {}: {error}", path.display());
            source.mistake(Some(entry.id.span()), what)
        })?;
    }
    let none = "there is no key; add [[key]] with id = 1 and secret_file = \"FILE\", the same on all machines";
    keys.ok_or_else(|| source.mistake(None, none))
}

/// The secret in a file, without a newline at its end. It does not stay in memory when it was used.
fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    // With an access control list, as systemd's credentials may have one, the group's bits are its mask.
    if file.metadata()?.mode() & 0o007 != 0 {
        let what = "everybody on this machine can; take that away (chmod o=)";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    // One more than is allowed shows that it is too long; there is room for all, so that nothing is copied.
    let limit = SECRET_MAX + 2;
    let mut secret = Zeroizing::new(Vec::with_capacity(limit + 64));
    file.take(limit as u64).read_to_end(&mut secret)?;
    if secret.last() == Some(&b'\n') {
        secret.pop();
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[derive(Deserialize)]
    struct Entries {
        key: Vec<KeyEntry>,
    }

    fn load_text(text: &str, config: &Path) -> Result<Keys, String> {
        let source = Source::new("f", text);
        let entries: Entries = source.parse().unwrap();
        load(&source, &entries.key, config).map_err(|mistake| mistake.to_string())
    }

    #[test]
    fn secrets_are_beside_the_file() {
        let directory = std::env::temp_dir().join(format!("nlb-keys-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, secret: &[u8], mode: u32| {
            let file = directory.join(name);
            std::fs::write(&file, secret).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        };
        write("one", b"0123456789abcdef\n", 0o640);
        write("short", b"0123\n", 0o600);
        write("long", &[b'a'; 90], 0o600);
        write("open", b"0123456789abcdef\n", 0o604);
        let config = directory.join("f");
        let key = |id: u8, file: &str| format!("[[key]]\nid = {id}\nsecret_file = \"{file}\"\n");
        let keys = load_text(&(key(1, "one") + &key(2, "one")), &config).unwrap();
        assert_eq!(format!("{keys:?}"), "Keys { ids: [1, 2], send: 1 }");
        for (text, what) in [
            (key(1, "one") + &key(1, "one"), "f:5: key 1 from"),
            (key(1, "short"), "f:2: key 1 from"),
            (key(1, "long"), "f:2: key 1 from"),
            (key(1, "none"), "f:3: cannot read the secret in"),
            (key(1, "open"), "f:3: cannot read the secret in"),
            ("key = []".to_owned(), "f: there is no key; add [[key]]"),
        ] {
            let mistake = load_text(&text, &config).unwrap_err();
            assert!(mistake.starts_with(what), "{mistake}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
