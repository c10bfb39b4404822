//! One measurement at a time on a GPU: a lock file for each.
//!
//! Cores are shared by design and their contention is seen by the kernel's accounting; two runs on one GPU would only spoil
//! each other's caches and clocks. The lock goes with the process, however it ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nabla_host::conditions;

use crate::{failure::Failure, worker::interrupted};

/// How often a wait looks again.
const TICK: Duration = Duration::from_millis(200);

/// Holds a device for measuring until it is dropped.
#[derive(Debug)]
pub(crate) struct DeviceLock {
    _file: File,
}

impl DeviceLock {
    /// Takes the lock of a GPU, the one named `name` and number `ordinal` of its driver, and waits for whoever has it.
    /// Other backends have none.
    ///
    /// # Errors
    /// When the lock file cannot be used, or Ctrl-C ends the wait.
    pub(crate) fn take(backend: &str, name: &str, ordinal: usize) -> Result<Option<Self>, Failure> {
        if backend != "cuda" {
            return Ok(None);
        }
        let key: String = conditions::device_key(name, ordinal)
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        Self::of_file(&std::env::temp_dir().join(format!("nabla-{key}.lock"))).map(Some)
    }

    fn of_file(path: &Path) -> Result<Self, Failure> {
        let cannot = |error: io::Error| Failure::write(path, &error);
        let mut file = open(path).map_err(cannot)?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if interrupted() => return Err(Failure::interrupted()),
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        anstream::eprintln!(
                            "waiting for {}, which measures on this GPU",
                            holder(&mut file, path)
                        );
                        told = true;
                    }
                    thread::sleep(TICK);
                }
                Err(TryLockError::Error(error)) => return Err(cannot(error)),
            }
        }
        // For whoever waits. A file of another user can be locked and not written.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> io::Result<File> {
    let ours = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    match ours {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path),
        other => other,
    }
}

fn holder(file: &mut File, path: &Path) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    match text.trim().parse::<u32>() {
        Ok(pid) if read.is_ok() => format!("process {pid}"),
        _ => format!("the holder of {}", PathBuf::from(path).display()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use super::*;

    #[test]
    fn the_second_waits_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu.lock");
        let first = DeviceLock::of_file(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        let (send, done) = channel();
        let second = thread::spawn(move || {
            let lock = DeviceLock::of_file(&path).unwrap();
            send.send(()).unwrap();
            drop(lock);
        });
        assert_eq!(done.recv_timeout(TICK * 2), Err(RecvTimeoutError::Timeout));
        drop(first);
        assert_eq!(done.recv_timeout(TICK * 100), Ok(()));
        second.join().unwrap();
    }

    #[test]
    fn a_cpu_has_no_lock() {
        assert!(DeviceLock::take("cpu", "any", 0).unwrap().is_none());
    }
}
