//! A disk of its own for the machine's journal: small, and broken at will.
//!
//! It is a tmpfs in a mount namespace that a sleeping process keeps; whoever is not root gets a user
//! namespace with it. The vault enters it; a test looks into it through the keeper's root.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bitspire_tests::process::Process;
use bitspire_tests::wait::{PATIENCE, wait_for};
use bitspire_tests::world::World;

/// The disk, and who keeps it.
pub(crate) struct Disk {
    keeper: Child,
    folder: PathBuf,
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

impl Disk {
    /// A disk of `kib` KiB for the vault of this world, which must not run yet. From now on it runs
    /// there, with `more` arguments.
    pub(crate) fn of(world: &mut World, kib: u32, more: &[&str]) -> Self {
        let folder = world.folder().join("machine/vault");
        fs::create_dir_all(&folder).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={kib}k,mode=700 tmpfs {} && echo there && exec sleep infinity",
            folder.display()
        );
        let mut unshare = Command::new("unshare");
        if !is_root() {
            unshare.arg("--map-root-user");
        }
        unshare.args(["--mount", "sh", "-c", &script]).stdout(Stdio::piped());
        let mut keeper = unshare.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said.trim(), "there", "no disk of its own: mount is not allowed here");
        let disk = Self { keeper, folder };
        let mut arguments = disk.enter();
        arguments.extend([
            world.program().display().to_string(),
            "agent".into(),
            "--config".into(),
        ]);
        arguments.extend([world.folder().join("machine.toml").display().to_string()]);
        arguments.extend(["vault"].iter().chain(more).map(ToString::to_string));
        let arguments = arguments.into_iter().map(Into::into).collect();
        let logs = world.folder().join("logs");
        world.vault = Process::new("vault", Path::new("nsenter"), arguments, &logs);
        disk
    }

    fn enter(&self) -> Vec<String> {
        let mut words = vec!["--target".to_owned(), self.keeper.id().to_string(), "--mount".into()];
        if !is_root() {
            words.extend(["--user".to_owned(), "--preserve-credentials".into()]);
        }
        words
    }

    /// A command that runs where the disk is.
    pub(crate) fn run(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = Command::new("nsenter").args(self.enter()).args(words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout) + &text(output.stderr))
    }

    /// A file on the disk, from outside.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let inside = self.folder.strip_prefix("/").unwrap();
        PathBuf::from(format!("/proc/{}/root", self.keeper.id())).join(inside).join(name)
    }

    /// Somebody else's file grows until so many bytes are left.
    pub(crate) fn fill_up_to(&self, left: u64) {
        let mut ballast = File::create(self.file("ballast")).unwrap();
        let stat = nix::sys::statvfs::statvfs(&self.file("")).unwrap();
        let free = stat.blocks_available() * stat.fragment_size();
        let bytes = vec![0x55; usize::try_from(free.saturating_sub(left)).unwrap()];
        // a page more or less is nobody's
        let _ = ballast.write_all(&bytes);
        while left == 0 && ballast.write_all(&[0x55]).is_ok() {}
    }

    /// The file goes.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.file("ballast")).unwrap();
    }

    /// Turns over one bit in the middle of the last place where `text` stands in the database.
    pub(crate) fn damage(&self, text: &str) {
        let path = self.file("journal.db");
        let bytes = fs::read(&path).unwrap();
        let last = bytes.windows(text.len()).rposition(|window| window == text.as_bytes());
        let at = last.unwrap_or_else(|| panic!("{text} is not there")) + text.len() / 2;
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[bytes[at] ^ 1], u64::try_from(at).unwrap()).unwrap();
    }
}

/// From now on this call fails with this error, in every thread of the process.
pub(crate) struct Injected(Child);

impl Drop for Injected {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes `calls` of a running process fail.
pub(crate) fn inject(process: &mut Process, calls: &str, error: &str) -> Injected {
    let id = process.id().unwrap().to_string();
    let mut child = Command::new("strace")
        .args(["-f", "-p", &id, "-o", "/dev/null", "-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={calls}:error={error}")])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("attached"), "strace: {line}");
    // it must never wait for its reader
    std::thread::spawn(move || said.read_to_string(&mut String::new()));
    Injected(child)
}

/// The end of a process that cannot use its journal, with what it logged.
pub(crate) fn ends_for_its_journal(process: &mut Process) -> String {
    let code = process.ends().unwrap();
    let said = process.trouble("ended");
    assert_eq!(code, Some(3), "{said}");
    said
}

/// Waits for a status of the machine.
pub(crate) fn status_says(world: &World, words: &str) {
    wait_for(words, PATIENCE, || {
        let status = world.status().map_err(|error| format!("{error:#}"))?;
        let reasons = status["out_of_service"].to_string();
        if reasons.contains(words) { Ok(()) } else { Err(reasons) }
    })
    .unwrap();
}
