//! Small files that survive a crash whole: keys and identities, written as a whole and never in place.
//!
//! This crate exists so that the order of the steps stands in one place; it knows nobody, and nothing of what the files
//! hold. It is not for data: extents and RocksDB have their own ways.
//!
//! Crash consistency: [`replace`] leaves the old file or the new one under the name, [`create`] none or the new one,
//! whatever the crash and whatever of the unsynced steps reached the disk. When they return, it is the new one. A file
//! named `NAME.new` may be left, and is overwritten by the next attempt. Cancellation: there is none, they block.
//! Retries: none here; after an error, either file may be there, and calling again is safe.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Writes a file, in place of one that may be there, with these permission bits.
///
/// # Errors
/// What the operating system answers: the old file is still there, unless only the last sync failed.
pub fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    write_whole(&mut OnDisk, path, contents, mode, Target::MayExist)
}

/// Writes a file that must not exist yet, with these permission bits.
///
/// # Errors
/// `AlreadyExists`, and what else the operating system answers.
pub fn create(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    write_whole(&mut OnDisk, path, contents, mode, Target::MustNotExist)
}

/// Makes the name of a file durable that was written, and synced, by other means.
///
/// # Errors
/// What the operating system answers.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    OnDisk.sync_folder(parent(path))
}

/// Whether the name may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    MayExist,
    MustNotExist,
}

/// The steps, so that a test can stop between any two of them.
trait Steps {
    /// Writes the file, which is truncated if it is there.
    fn write(&mut self, path: &Path, contents: &[u8], mode: u32) -> io::Result<()>;
    /// Makes a file's contents durable.
    fn sync_file(&mut self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, atomically.
    fn rename(&mut self, from: &Path, to: &Path, target: Target) -> io::Result<()>;
    /// Makes a folder's names durable.
    fn sync_folder(&mut self, path: &Path) -> io::Result<()>;
}

fn write_whole(steps: &mut impl Steps, path: &Path, contents: &[u8], mode: u32, target: Target) -> io::Result<()> {
    let temporary = temporary(path);
    steps.write(&temporary, contents, mode)?;
    // Before the rename: a name that is durable before its contents would be an empty file after a crash.
    steps.sync_file(&temporary)?;
    steps.rename(&temporary, path, target)?;
    steps.sync_folder(parent(path))
}

/// In the same folder, since a rename does not leave a file system.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

struct OnDisk;

impl Steps for OnDisk {
    fn write(&mut self, path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
        // What a crash left may have another mode, and it must be right before there is anything to read.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(contents)
    }

    fn sync_file(&mut self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&mut self, from: &Path, to: &Path, target: Target) -> io::Result<()> {
        if target == Target::MayExist {
            return fs::rename(from, to);
        }
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // File systems without that flag have links, which never replace anything either.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                fs::hard_link(from, to)?;
                fs::remove_file(from)
            }
            Err(error) => {
                if error.kind() == ErrorKind::AlreadyExists {
                    // It may hold a key, and nobody will come back for it.
                    let _ = fs::remove_file(from);
                }
                Err(error.into())
            }
            Ok(()) => Ok(()),
        }
    }

    fn sync_folder(&mut self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn files_are_replaced_and_created_whole_with_their_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let leftover = folder.path().join("a.json.new");
        fs::write(&leftover, "left by a crash, and longer than what follows").unwrap();
        create(&path, b"one", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(create(&path, b"two", 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace(&path, b"three", 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!leftover.exists());
        assert!(replace(&folder.path().join("missing/b"), b"", 0o600).is_err());
        sync_parent(&path).unwrap();
    }

    #[test]
    fn a_name_without_a_folder_is_in_the_current_one() {
        assert_eq!(parent(Path::new("root.key")), Path::new("."));
        assert_eq!(parent(Path::new("/root.key")), Path::new("/"));
        assert_eq!(temporary(Path::new("x/root.key")), Path::new("x/root.key.new"));
    }

    const OLD: &[u8] = b"old contents";
    const NEW: &[u8] = b"new contents, longer";

    /// One file: what was written to it, and what of that is durable.
    #[derive(Debug, Clone, Default)]
    struct Inode {
        written: Vec<u8>,
        durable: Vec<u8>,
    }

    /// A folder as a kernel sees it: names and contents reach the disk when they are synced, or earlier, or never, and
    /// in any order.
    #[derive(Debug, Clone, Default)]
    struct Volatile {
        inodes: Vec<Inode>,
        /// Every state of the names since the last sync of the folder, the newest last.
        names: Vec<BTreeMap<PathBuf, usize>>,
        /// Steps that still happen before the power fails.
        steps_left: usize,
    }

    impl Volatile {
        fn new(path: &Path, old: Option<&[u8]>) -> Self {
            let mut new = Self { names: vec![BTreeMap::new()], ..Self::default() };
            if let Some(old) = old {
                new.inodes.push(Inode { written: old.to_vec(), durable: old.to_vec() });
                new.names[0].insert(path.to_owned(), 0);
            }
            new
        }

        fn step(&mut self) -> io::Result<()> {
            self.steps_left = self.steps_left.checked_sub(1).ok_or(ErrorKind::Interrupted)?;
            Ok(())
        }

        fn now(&self) -> BTreeMap<PathBuf, usize> {
            self.names.last().cloned().unwrap_or_default()
        }

        /// What the name may hold after the crash.
        fn outcomes(&self, path: &Path) -> Vec<Option<Vec<u8>>> {
            let mut outcomes = Vec::new();
            for names in &self.names {
                let Some(&inode) = names.get(path) else {
                    outcomes.push(None);
                    continue;
                };
                let Inode { written, durable } = &self.inodes[inode];
                // Unsynced contents: all of them, none, or some.
                for contents in [written.clone(), durable.clone(), written[..written.len() / 2].to_vec()] {
                    let is_possible = written != durable || contents == *written;
                    if is_possible {
                        outcomes.push(Some(contents));
                    }
                }
            }
            outcomes
        }
    }

    impl Steps for Volatile {
        fn write(&mut self, path: &Path, contents: &[u8], _: u32) -> io::Result<()> {
            self.step()?;
            let mut names = self.now();
            self.inodes.push(Inode { written: contents.to_vec(), durable: Vec::new() });
            names.insert(path.to_owned(), self.inodes.len() - 1);
            self.names.push(names);
            Ok(())
        }

        fn sync_file(&mut self, path: &Path) -> io::Result<()> {
            self.step()?;
            let inode = self.now()[path];
            self.inodes[inode].durable = self.inodes[inode].written.clone();
            Ok(())
        }

        fn rename(&mut self, from: &Path, to: &Path, target: Target) -> io::Result<()> {
            self.step()?;
            let mut names = self.now();
            if target == Target::MustNotExist && names.contains_key(to) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            let inode = names.remove(from).ok_or(ErrorKind::NotFound)?;
            names.insert(to.to_owned(), inode);
            self.names.push(names);
            Ok(())
        }

        fn sync_folder(&mut self, _: &Path) -> io::Result<()> {
            self.step()?;
            self.names = vec![self.now()];
            Ok(())
        }
    }

    #[test]
    fn a_crash_after_any_step_leaves_the_old_file_or_the_new_one() {
        let path = Path::new("folder/file");
        for (old, target) in [(Some(OLD), Target::MayExist), (None, Target::MayExist), (None, Target::MustNotExist)] {
            for steps_left in 0..=4 {
                let mut folder = Volatile { steps_left, ..Volatile::new(path, old) };
                let done = write_whole(&mut folder, path, NEW, 0o600, target).is_ok();
                assert_eq!(done, steps_left == 4);
                for outcome in folder.outcomes(path) {
                    let outcome = outcome.as_deref();
                    assert!(outcome == Some(NEW) || (!done && outcome == old), "{steps_left}: {outcome:?}");
                }
            }
        }
    }

    #[test]
    fn what_exists_is_not_created_over_even_by_a_crash() {
        let path = Path::new("folder/file");
        for steps_left in 0..=4 {
            let mut folder = Volatile { steps_left, ..Volatile::new(path, Some(OLD)) };
            assert!(write_whole(&mut folder, path, NEW, 0o600, Target::MustNotExist).is_err());
            assert!(folder.outcomes(path).iter().all(|outcome| outcome.as_deref() == Some(OLD)));
        }
    }
}
