//! `pair`: a seed, shown once as text and QR code, or written into files that nobody else reads.
//!
//! Promise: the seed is a bearer secret. It goes to the terminal, or, with `--out`, into files of mode
//! 0600 that were not there before, and then not to the terminal. What a file cannot be written for is
//! said before the machine is paired.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use png::{BitDepth, ColorType, Encoder};
use qrcode::render::svg;
use qrcode::render::unicode::Dense1x2;
use qrcode::types::QrError;
use qrcode::{Color, EcLevel, QrCode};
use serde_json::{Value, json};
use thiserror::Error;

use super::client::Client;
use super::show::fields;
use super::{CliError, End};
use crate::ids::MachineId;

/// Pixels of a module's side.
const MODULE: usize = 6;
/// Modules of white around the code, as its standard asks.
const QUIET: usize = 4;

#[derive(Debug, Args)]
pub(super) struct Pair {
    /// Its number, as `machine list` shows it
    pub(super) machine: MachineId,
    /// A relay of machine and service; may be given again [default: those of the configuration]
    #[arg(long, value_name = "URL")]
    pub(super) relay: Vec<String>,
    /// Hours until the pairing ends [default: 720]
    #[arg(long, value_name = "N")]
    pub(super) hours: Option<u32>,
    /// The relay where the machine reaches the bunker [default: the first relay]
    #[arg(long, value_name = "URL")]
    pub(super) bunker_relay: Option<String>,
    /// Machine and service share this computer: relays on loopback are fine
    #[arg(long)]
    pub(super) allow_loopback: bool,
    /// Draw the seed as a QR code
    #[arg(long)]
    pub(super) qr: bool,
    /// Write the seed into this file instead of showing it, as what its ending says: .png and .svg are
    /// QR codes, anything else is text, for `bitspire-agent pair --seed-file` from a USB stick; may be
    /// given again
    #[arg(long, value_name = "FILE")]
    pub(super) out: Vec<PathBuf>,
}

/// Why a seed is not where it should be.
#[derive(Debug, Error)]
pub(super) enum SeedFileError {
    /// The file system refused.
    #[error(
        "{path}: expected a file that is not there yet, in a folder that can be written", path = .path.display()
    )]
    Open {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// It could not be written.
    #[error(
        "{path}: the seed could not be written; the machine waits for a seed that nobody has: pair it \
         again", path = .path.display()
    )]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// It does not fit.
    #[error("the seed is too long for a QR code; write it as text, and pair the machine again")]
    Code(#[from] QrError),
}

/// Pairs, and hands over the seed.
pub(super) fn run(client: &Client, raw: bool, asked: Pair) -> Result<End, CliError> {
    let relays = match asked.relay.is_empty() {
        false => json!(asked.relay),
        true => client.get("/operators")?.body["relays"].take(),
    };
    let mut files = Vec::new();
    for path in asked.out {
        files.push((open(&path)?, path));
    }
    let body = json!({
        "relays": relays,
        "duration_hours": asked.hours,
        "bunker_relay": asked.bunker_relay,
        "allow_loopback": asked.allow_loopback,
    });
    let paired = client.post(&format!("/dca/machines/{}/pair", asked.machine), &body);
    let mut answer = match paired {
        Ok(answer) => answer.body,
        Err(error) => {
            // nothing was made that could be in them
            for (_, path) in &files {
                let _ = std::fs::remove_file(path);
            }
            return Err(error.into());
        }
    };
    let mut out = std::io::stdout();
    let seed = answer["seed_url"].as_str().unwrap_or_default().to_owned();
    if !files.is_empty() {
        let written: Vec<_> = files.iter().map(|(_, path)| path.display().to_string()).collect();
        for (file, path) in files {
            write(file, &path, &seed)?;
        }
        if let Value::Object(fields) = &mut answer {
            fields.remove("seed_url");
            fields.insert("seed_files".into(), json!(written));
        }
    }
    match raw {
        true => writeln!(out, "{answer:#}")?,
        false => write!(out, "{}", fields(&answer))?,
    }
    if asked.qr && !raw {
        write!(out, "{}", drawn(&seed)?)?;
    }
    Ok(End::Done)
}

fn open(path: &Path) -> Result<File, SeedFileError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|source| SeedFileError::Open { path: path.to_owned(), source })
}

fn write(mut file: File, path: &Path, seed: &str) -> Result<(), SeedFileError> {
    let bytes = match path.extension().and_then(|ending| ending.to_str()) {
        Some("png") => pixels(seed)?,
        Some("svg") => vector(seed)?.into_bytes(),
        _ => format!("{seed}\n").into_bytes(),
    };
    let written = file.write_all(&bytes).and_then(|()| file.sync_all());
    written.map_err(|source| SeedFileError::Write { path: path.to_owned(), source })
}

fn code(seed: &str) -> Result<QrCode, QrError> {
    QrCode::with_error_correction_level(seed, EcLevel::L)
}

/// For a terminal, dark on light.
fn drawn(seed: &str) -> Result<String, SeedFileError> {
    let (dark, light) = (Dense1x2::Light, Dense1x2::Dark);
    let drawn = code(seed)?.render::<Dense1x2>().dark_color(dark).light_color(light).build();
    Ok(format!("{drawn}\n"))
}

fn vector(seed: &str) -> Result<String, SeedFileError> {
    Ok(code(seed)?.render::<svg::Color<'_>>().build())
}

/// A grey picture of one bit a pixel.
fn pixels(seed: &str) -> Result<Vec<u8>, SeedFileError> {
    let code = code(seed)?;
    let side = (code.width() + 2 * QUIET) * MODULE;
    let dark = |x: usize, y: usize| {
        let module = |pixel: usize| (pixel / MODULE).checked_sub(QUIET);
        let (Some(x), Some(y)) = (module(x), module(y)) else { return false };
        x < code.width() && y < code.width() && code[(x, y)] == Color::Dark
    };
    let mut rows = Vec::with_capacity(side * side / 8 + side);
    for y in 0..side {
        for eight in 0..side.div_ceil(8) {
            let bits = (0..8).map(|bit| eight * 8 + bit);
            // white is 1
            let byte = bits.fold(0, |byte, x| byte << 1 | u8::from(!dark(x, y)));
            rows.push(byte);
        }
    }
    let mut picture = Vec::new();
    let size = u32::try_from(side).unwrap_or(u32::MAX);
    let mut encoder = Encoder::new(&mut picture, size, size);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::One);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&rows));
    written.map_err(|error| SeedFileError::Write {
        path: PathBuf::from("a picture in memory"),
        source: std::io::Error::other(error),
    })?;
    Ok(picture)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rqrr::{Grid, SimpleGrid};

    use super::*;

    /// Loss prevented: an installer in front of a machine with a picture that no scanner reads, or a
    /// seed that lies about for everybody.
    #[test]
    fn a_seed_is_read_back_from_every_file() {
        let folder = tempfile::tempdir().unwrap();
        let seed = format!("spire-seed:v1:{}", "eyJzcGlyZV9ucHViIjoibnB1".repeat(30));
        for name in ["seed.png", "seed.svg", "seed.txt", "seed"] {
            let path = folder.path().join(name);
            write(open(&path).unwrap(), &path, &seed).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(
                matches!(open(&path), Err(SeedFileError::Open { .. })),
                "nothing is overwritten"
            );
        }
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        assert_eq!(read("seed.txt"), format!("{seed}\n").into_bytes());
        assert!(read("seed.svg").starts_with(b"<?xml"));
        let bytes = read("seed.png");
        let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        let mut rows = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rows).unwrap();
        let modules = info.width as usize / MODULE - 2 * QUIET;
        let dark = |x: usize, y: usize| {
            let (x, y) = ((x + QUIET) * MODULE + 1, (y + QUIET) * MODULE + 1);
            rows[y * info.line_size + x / 8] >> (7 - x % 8) & 1 == 0
        };
        let grid = Grid::new(SimpleGrid::from_func(modules, dark));
        assert_eq!(grid.decode().unwrap().1, seed);
        let endless = "x".repeat(5_000);
        assert!(matches!(pixels(&endless), Err(SeedFileError::Code(_))));
    }
}
