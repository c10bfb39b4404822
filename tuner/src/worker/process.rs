//! The program's end of a worker: start, ask with a deadline, kill.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fmt,
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nabla_reports::Machine;

use super::{
    limits,
    protocol::{Hello, PROTOCOL, Reply, Request},
};
use crate::failure::{Failure, Kind};

/// Set by Ctrl-C.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// How often a wait looks whether it was interrupted.
const TICK: Duration = Duration::from_millis(50);
/// Bytes kept of what a worker said last on stderr: its error stands before a backtrace of many kilobytes.
const LAST_WORDS: usize = 256 << 10;
/// Time for the rest of stderr to arrive once a worker has ended; a process it left behind may hold the pipe open.
const REST_OF_WORDS: Duration = Duration::from_secs(2);

/// Notes Ctrl-C instead of ending at once, so that what is finished is kept; a second one ends at once.
pub(crate) fn watch_for_interrupts() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(Kind::Interrupted as i32);
        }
    })
    .map_err(|error| Failure::new(Kind::Device, format!("cannot watch for Ctrl-C: {error}")))
}

/// Says whether Ctrl-C was pressed.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// How to start a worker.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Further variables of its environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Time to say hello in: the input is read and the device started.
    pub(crate) patience: Duration,
}

/// Why a worker is not there any more.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Gone {
    /// It did not answer in time and was killed.
    Timeout(Duration),
    /// It ended; how, and what it said last.
    Ended {
        /// Exit code, if it was not killed.
        code: Option<i32>,
        /// How it ended, in words.
        how: String,
        /// What it said last.
        words: String,
    },
    /// It answered something else than replies.
    Nonsense(String),
    /// Ctrl-C.
    Interrupted,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gone::Timeout(after) => {
                write!(f, "did not end within {:.0} s and was killed", after.as_secs_f64())
            }
            Gone::Ended { how, words, .. } if words.is_empty() => write!(f, "took its process down ({how})"),
            Gone::Ended { how, words, .. } => write!(f, "took its process down ({how}): {words}"),
            Gone::Nonsense(line) => write!(f, "answered what is no reply: {line}"),
            Gone::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// A running worker. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    requests: Option<ChildStdin>,
    replies: Receiver<String>,
    last_words: Arc<Mutex<VecDeque<u8>>>,
    listener: JoinHandle<()>,
    hello: Hello,
}

impl Worker {
    /// Starts a worker and waits for its hello.
    ///
    /// # Errors
    /// With the worker's own message and exit code where it could not start at all.
    pub(crate) fn start(start: &Start) -> Result<Self, Failure> {
        let mut command = Command::new(&start.program);
        command.args(&start.arguments).envs(start.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        limits::own_group(&mut command);
        let cannot = |error: &dyn fmt::Display| {
            Failure::new(
                Kind::Device,
                format!("cannot start a worker with {}: {error}", start.program.display()),
            )
        };
        let mut child = command.spawn().map_err(|error| cannot(&error))?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(cannot(&"no pipes"));
        };
        let (send, replies) = sync_channel(64);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let last_words = Arc::new(Mutex::new(VecDeque::new()));
        let words = Arc::clone(&last_words);
        let listener = thread::spawn(move || keep_last(stderr, &words));
        let placeholder = Hello::unknown();
        let mut worker =
            Self { child, requests: Some(stdin), replies, last_words, listener, hello: placeholder };
        worker.hello = worker.wait_for_hello(start.patience)?;
        tracing::debug!(pid = worker.child.id(), program = %start.program.display(), "worker started");
        Ok(worker)
    }

    fn wait_for_hello(&mut self, patience: Duration) -> Result<Hello, Failure> {
        let deadline = Instant::now() + patience;
        loop {
            // What stands before the hello is not ours: a test harness announces itself.
            let line = match self.line(deadline, patience) {
                Ok(line) => line,
                Err(gone) => return Err(refusal(&gone)),
            };
            match serde_json::from_str::<Reply>(&line) {
                Ok(Reply::Hello(hello)) if hello.protocol == PROTOCOL => return Ok(*hello),
                Ok(Reply::Hello(hello)) => {
                    return Err(Failure::new(
                        Kind::Input,
                        format!(
                            "the worker speaks version {} of the protocol (nabla {}, {}), expected {PROTOCOL}: compare \
                             builds that are nearer to each other",
                            hello.protocol, hello.nabla, hello.commit
                        ),
                    ));
                }
                Ok(Reply::Refused { code, reason }) => return Err(Failure::of_code(code, reason)),
                _ => {}
            }
        }
    }

    /// Returns who it is.
    pub(crate) fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Asks what the device can do and how it is set; returns it with the microseconds that took.
    ///
    /// # Errors
    /// When there is no such answer in time.
    pub(crate) fn machine(&mut self, patience: Duration) -> Result<(Option<Machine>, f64), Failure> {
        match self.ask(&Request::Machine).and_then(|()| self.reply(patience)) {
            Ok(Reply::Machine { machine, work_us }) => Ok((machine, work_us)),
            Ok(other) => Err(refusal(&Gone::Nonsense(format!("{other:?}")))),
            Err(gone) => Err(refusal(&gone)),
        }
    }

    /// Asks for something.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<(), Gone> {
        let mut text = serde_json::to_vec(request).unwrap_or_default();
        text.push(b'\n');
        let written = match &mut self.requests {
            Some(requests) => requests.write_all(&text).and_then(|()| requests.flush()),
            None => Ok(()),
        };
        // A closed pipe: how it ended says more.
        written.map_err(|_| self.ended())
    }

    /// Waits for the next reply.
    pub(crate) fn reply(&mut self, patience: Duration) -> Result<Reply, Gone> {
        let line = self.line(Instant::now() + patience, patience)?;
        serde_json::from_str(&line).map_err(|_| {
            self.kill();
            Gone::Nonsense(line.chars().take(200).collect())
        })
    }

    fn line(&mut self, deadline: Instant, patience: Duration) -> Result<String, Gone> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.replies.recv_timeout(left.min(TICK)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
                Err(RecvTimeoutError::Timeout) if interrupted() => {
                    self.kill();
                    return Err(Gone::Interrupted);
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    self.kill();
                    return Err(Gone::Timeout(patience));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Says how it ended.
    fn ended(&mut self) -> Gone {
        self.requests = None;
        // Its pipe is closed: it has ended, or is about to.
        let deadline = Instant::now() + Duration::from_secs(2);
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                _ => {
                    self.kill();
                    break self.child.try_wait().ok().flatten();
                }
            }
        };
        if interrupted() {
            return Gone::Interrupted;
        }
        let deadline = Instant::now() + REST_OF_WORDS;
        while !self.listener.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        let words = String::from_utf8_lossy(&words.iter().copied().collect::<Vec<u8>>()).trim().to_owned();
        let how = status.map_or_else(|| "unknown status".to_owned(), |status| status.to_string());
        Gone::Ended { code: status.and_then(|status| status.code()), how, words: first_line(&words) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // An idle worker ends by itself when its requests end; one that does not is killed.
        self.requests = None;
        let deadline = Instant::now() + Duration::from_millis(500);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.kill();
    }
}

/// Makes the failure of a command from a worker that could not even start, with its own words and code.
fn refusal(gone: &Gone) -> Failure {
    match gone {
        Gone::Interrupted => Failure::interrupted(),
        Gone::Ended { code: Some(code), words, .. } if (2..=7).contains(code) && !words.is_empty() => {
            Failure::of_code(*code as u8, words.trim_start_matches("error: ").to_owned())
        }
        other => Failure::new(Kind::Device, format!("a worker {other}")),
    }
}

/// Returns what matters of last words: the first line that names an error, else the last line.
fn first_line(words: &str) -> String {
    let named = words.lines().find(|line| {
        let lower = line.to_lowercase();
        lower.contains("error") || lower.contains("panicked") || lower.contains("allocation")
    });
    named.or_else(|| words.lines().last()).unwrap_or_default().trim().to_owned()
}

fn keep_last(mut from: impl Read, to: &Mutex<VecDeque<u8>>) {
    let mut chunk = [0u8; 1024];
    while let Ok(read) = from.read(&mut chunk) {
        if read == 0 {
            break;
        }
        let mut words = to.lock().unwrap_or_else(PoisonError::into_inner);
        words.extend(&chunk[..read]);
        let excess = words.len().saturating_sub(LAST_WORDS);
        words.drain(..excess);
    }
}
