//! Looks for secrets in files: as bytes, and in every spelling in which they would be written.
//!
//! Promise: a secret that is known is found raw, as hex and as base64, wherever it begins; a private
//! key is found by its public key alone, raw, as hex, as base64 and as nsec.
//!
//! Failure policy: a file that cannot be read is an error, never a file without secrets.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bitspire_shared::ids::{PubKey, to_hex};
use nostr::base64::Engine as _;
use nostr::base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use nostr::{Keys, SecretKey};

/// Bytes of a private key.
const KEY: usize = 32;
/// Characters of one as base64, without padding.
const KEY_BASE64: usize = 43;
/// Characters of an nsec (NIP-19).
const NSEC: usize = 63;
/// Bytes by which a needle is looked up; none is shorter.
const START: usize = 4;
/// Fewer different bytes than this among 32 random ones: once in 10^16.
const DIFFERENT: usize = 20;

/// A secret where it should not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The file.
    pub file: PathBuf,
    /// Which secret, and how it is written there.
    pub what: String,
}

/// What is looked for.
#[derive(Debug, Default)]
pub struct Hunt {
    needles: Vec<(String, Vec<u8>)>,
    keys: BTreeMap<[u8; KEY], String>,
}

impl Hunt {
    /// Looks for these bytes in every spelling.
    pub fn bytes(&mut self, what: &str, secret: &[u8]) {
        let mut spelled = |how: &str, text: Vec<u8>| {
            self.needles.push((format!("{what}, {how}"), text));
        };
        let hex = to_hex(secret);
        spelled("raw", secret.to_vec());
        spelled("upper-case hex", hex.to_uppercase().into_bytes());
        spelled("hex", hex.into_bytes());
        // as JSON writes a list of bytes
        let list: Vec<String> = secret.iter().map(u8::to_string).collect();
        spelled("list", list.join(",").into_bytes());
        // what it looks like inside a longer text depends on where it begins
        for before in 0..3usize {
            let text = [vec![0; before], secret.to_vec()].concat();
            let (from, to) = ((before * 8).div_ceil(6), text.len() * 8 / 6);
            let inner = |all: String| all.as_bytes()[from..to].to_vec();
            spelled("base64", inner(STANDARD.encode(&text)));
            spelled("base64url", inner(URL_SAFE_NO_PAD.encode(&text)));
        }
    }

    /// Looks for this text in both cases and in every spelling.
    pub fn text(&mut self, what: &str, secret: &str) {
        self.bytes(what, secret.as_bytes());
        for (how, text) in [("upper", secret.to_uppercase()), ("lower", secret.to_lowercase())] {
            self.needles.push((format!("{what}, {how} case"), text.into_bytes()));
        }
    }

    /// Looks for a private key, of which the public key is enough.
    pub fn key(&mut self, what: &str, key: &PubKey) {
        self.keys.insert(key.to_bytes(), what.to_owned());
    }

    /// Where what is looked for stands in these files and folders, and how many files were read.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn look(&self, places: &[&Path]) -> Result<(usize, Vec<Found>)> {
        let mut files = Vec::new();
        for place in places {
            list(place, &mut files)?;
        }
        let mut needles: HashMap<&[u8], Vec<&(String, Vec<u8>)>> = HashMap::new();
        for needle in &self.needles {
            let start = needle.1.get(..START);
            let start = start.with_context(|| format!("{}: too short to look for", needle.0))?;
            needles.entry(start).or_default().push(needle);
        }
        let (mut found, mut tried) = (BTreeSet::new(), HashSet::new());
        let mut owners: Vec<([u8; KEY], PathBuf)> = Vec::new();
        for file in &files {
            let bytes = fs::read(file).with_context(|| format!("{}", file.display()))?;
            for (at, start) in bytes.windows(START).enumerate() {
                for (what, needle) in needles.get(start).into_iter().flatten() {
                    if bytes[at..].starts_with(needle) {
                        found.insert(Found { file: file.clone(), what: what.clone() });
                    }
                }
            }
            if self.keys.is_empty() {
                continue;
            }
            guesses(&bytes, &mut |guess| {
                if tried.insert(guess) {
                    owners.push((guess, file.clone()));
                }
            });
        }
        for (guess, file) in owners {
            // most are no key at all
            let Ok(secret) = SecretKey::from_slice(&guess) else { continue };
            let public = Keys::new(secret).public_key().to_bytes();
            if let Some(what) = self.keys.get(&public) {
                found.insert(Found { file, what: what.clone() });
            }
        }
        Ok((files.len(), found.into_iter().collect()))
    }
}

/// Every file below a place; sockets and links hold no bytes of their own.
fn list(place: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let kind = fs::symlink_metadata(place).with_context(|| format!("{}", place.display()))?;
    if kind.is_file() {
        files.push(place.to_owned());
    } else if kind.is_dir() {
        for entry in fs::read_dir(place)? {
            list(&entry?.path(), files)?;
        }
    }
    Ok(())
}

/// Everything in these bytes that may be a private key.
fn guesses(bytes: &[u8], guess: &mut dyn FnMut([u8; KEY])) {
    for window in bytes.windows(KEY) {
        // a text is no key of random bytes, nor is a run of zeros
        if window.is_ascii() {
            continue;
        }
        let (mut seen, mut different) = ([false; 256], 0);
        for byte in window {
            different += usize::from(!std::mem::replace(&mut seen[usize::from(*byte)], true));
        }
        if different >= DIFFERENT {
            guess(window.try_into().unwrap_or([0; KEY]));
        }
    }
    for run in runs(bytes, |byte| byte.is_ascii_hexdigit()) {
        for window in run.windows(2 * KEY) {
            let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
            let mut key = [0; KEY];
            for (byte, pair) in key.iter_mut().zip(window.chunks(2)) {
                *byte = digit(pair[0]) << 4 | digit(pair[1]);
            }
            guess(key);
        }
    }
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
    for run in runs(bytes, base64) {
        for window in run.windows(KEY_BASE64) {
            let text: Vec<u8> = window
                .iter()
                .map(|byte| match byte {
                    b'+' => b'-',
                    b'/' => b'_',
                    other => *other,
                })
                .collect();
            if let Ok(key) = URL_SAFE_NO_PAD.decode(text)
                && let Ok(key) = key.try_into()
            {
                guess(key);
            }
        }
    }
    for run in runs(bytes, |byte| byte.is_ascii_alphanumeric()) {
        for window in run.windows(NSEC).filter(|text| text[..5].eq_ignore_ascii_case(b"nsec1")) {
            let text = String::from_utf8_lossy(window).to_lowercase();
            if let Ok(key) = SecretKey::parse(&text) {
                guess(key.to_secret_bytes());
            }
        }
    }
}

/// The longest stretches of bytes of one kind.
fn runs(bytes: &[u8], kind: impl Fn(u8) -> bool) -> impl Iterator<Item = &[u8]> {
    bytes.split(move |byte| !kind(*byte)).filter(|run| run.len() >= KEY_BASE64)
}

#[cfg(test)]
mod tests {
    use nostr::ToBech32 as _;

    use super::*;

    fn look(hunt: &Hunt, content: &[u8]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("inner/file"), content).unwrap();
        fs::write(folder.path().join("other"), "nothing").unwrap();
        let (files, found) = hunt.look(&[folder.path()]).unwrap();
        assert_eq!(files, 2);
        assert!(found.iter().all(|found| found.file.ends_with("inner/file")));
        found.into_iter().map(|found| found.what).collect()
    }

    fn keys() -> (Keys, Hunt) {
        let keys = Keys::generate();
        let mut hunt = Hunt::default();
        hunt.key("spire", &PubKey::new(keys.public_key()).unwrap());
        (keys, hunt)
    }

    /// Loss prevented: a scan that finds no private key because it looks for none.
    #[test]
    fn a_private_key_is_found_in_every_spelling() {
        let (keys, hunt) = keys();
        let secret = keys.secret_key();
        let bytes = secret.to_secret_bytes();
        let raw = [b"SQLite\0".as_slice(), &[0; 40], &bytes, &[0; 40]].concat();
        assert_eq!(look(&hunt, &raw), ["spire"]);
        let beside = "0123456789abcdef".repeat(4);
        for text in [
            format!("key={}\n", secret.to_secret_hex()),
            secret.to_secret_hex().to_uppercase(),
            format!("{beside}{}{beside}", secret.to_secret_hex()),
            format!("\"{}\"", secret.to_bech32().unwrap()),
            secret.to_bech32().unwrap().to_uppercase(),
            URL_SAFE_NO_PAD.encode(bytes),
            format!("x:{}", STANDARD.encode(bytes)),
        ] {
            assert_eq!(look(&hunt, text.as_bytes()), ["spire"], "{text}");
        }
        let public = keys.public_key();
        assert!(
            look(&hunt, format!("{public} {}", public.to_bech32().unwrap()).as_bytes()).is_empty()
        );
        let other = Keys::generate().secret_key().to_secret_hex();
        assert!(look(&hunt, other.as_bytes()).is_empty());
    }

    /// Loss prevented: a seed's secret that lies on the disk inside of something longer.
    #[test]
    fn a_known_secret_is_found_wherever_it_begins() {
        let secret = Keys::generate().secret_key().to_secret_bytes();
        let mut hunt = Hunt::default();
        hunt.bytes("seed", &secret);
        hunt.text("url", "spire-seed:v1:AbC");
        assert!(!look(&hunt, &secret).is_empty());
        for before in 0..4 {
            let longer = [vec![b'x'; before], secret.to_vec(), b"tail".to_vec()].concat();
            for text in [
                STANDARD.encode(&longer),
                URL_SAFE_NO_PAD.encode(&longer),
                to_hex(&longer),
                to_hex(&longer).to_uppercase(),
                serde_json::to_string(&longer).unwrap(),
            ] {
                assert!(!look(&hunt, text.as_bytes()).is_empty(), "{before}: {text}");
            }
        }
        for text in ["log: spire-seed:v1:AbC", "SPIRE-SEED:V1:ABC", "spire-seed:v1:abc"] {
            assert!(!look(&hunt, text.as_bytes()).is_empty(), "{text}");
        }
        let inside = STANDARD.encode("{\"a\":\"spire-seed:v1:AbC\"}");
        assert!(!look(&hunt, inside.as_bytes()).is_empty());
        assert!(look(&hunt, b"spire-seed:v1:").is_empty());
        assert!(look(&hunt, &Keys::generate().secret_key().to_secret_bytes()).is_empty());
    }

    /// Loss prevented: a scan that passes because its folder is not there.
    #[test]
    fn what_is_not_there_is_an_error() {
        assert!(Hunt::default().look(&[Path::new("/nowhere/at/all")]).is_err());
    }
}
