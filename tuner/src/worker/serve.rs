//! The worker's side: requests in, launches, replies out.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use nabla_host::{
    BlockMask, Grid, Policy, Problem,
    backend::{AttentionOutput, Backend, BackendError, Orders, Pattern, Workspace},
    conditions::Watch,
    cost,
    generate::{GenerateSpec, generate_video},
    parameters::Parameters,
    provenance,
    reference::{Arithmetic, OrderedMask, Reference, RowSample, attention},
    tensor::Qkv,
    token_order::Arrangement,
    variant::{MaskBlock, Variant},
    verify::{Oracle, verify},
};
use nabla_reports::Status;

use super::{
    protocol::{Build, Errors, Hello, Opened, PROTOCOL, Reply, Request, Target, WireItem},
    save::save,
};
use crate::{
    failure::{Failure, Kind},
    input,
    machine::machine_of,
    measure::On,
};

/// What a worker works on.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// The input, whole.
    pub(crate) qkv: Arc<Qkv>,
    /// Query rows per head that errors are computed on, where the options say.
    pub(crate) error_rows: Option<usize>,
    /// Seed of the choice of rows.
    pub(crate) seed: u64,
    /// Number of the GPU.
    pub(crate) ordinal: usize,
    /// Other workers on the same device.
    pub(crate) peers: u32,
}

/// Answers requests until there are no more.
pub(crate) fn serve(
    backend: &dyn Backend,
    inputs: &Inputs,
    requests: impl BufRead,
    mut replies: impl Write + Send,
) -> Result<(), Failure> {
    let mut server = Server {
        watch: Watch::new(backend.device(), inputs.ordinal, inputs.peers),
        backend,
        inputs,
        open: None,
        dense: None,
    };
    send(&mut replies, &Reply::Hello(Box::new(hello(backend, &inputs.qkv))))?;
    for line in requests.lines() {
        let line = line?;
        match serde_json::from_str(&line) {
            Ok(request) => server.answer(request, &mut replies)?,
            Err(error) => {
                let reason = format!("a worker was asked what it does not understand: {error}");
                return refuse(&mut replies, &Failure::new(Kind::Usage, reason));
            }
        }
    }
    Ok(())
}

fn send(replies: &mut impl Write, reply: &Reply) -> io::Result<()> {
    let mut text = serde_json::to_vec(reply)?;
    text.push(b'\n');
    replies.write_all(&text)?;
    replies.flush()
}

fn refuse(replies: &mut impl Write, failure: &Failure) -> Result<(), Failure> {
    send(replies, &Reply::Refused { code: failure.code(), reason: failure.to_string() })?;
    Ok(())
}

fn hello(backend: &dyn Backend, qkv: &Qkv) -> Hello {
    let device = backend.device();
    Hello {
        protocol: PROTOCOL,
        nabla: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("NABLA_GIT_COMMIT").to_owned(),
        sources: provenance::SOURCE_HASH.to_owned(),
        toolchain: provenance::TOOLCHAIN.to_owned(),
        backend: device.backend.to_owned(),
        device: device.name.clone(),
        driver: device.driver.clone(),
        isa: device.isa.clone(),
        threads: device.threads.map(|n| n as u64),
        input: qkv.source.clone(),
        input_hash: qkv.short_hash(),
        problem: qkv.problem(),
    }
}

struct Server<'a> {
    backend: &'a dyn Backend,
    inputs: &'a Inputs,
    watch: Watch,
    open: Option<Open<'a>>,
    /// Dense attention by frames, kept from one policy to the next.
    dense: Option<(Option<usize>, Reference)>,
}

/// The loaded problem.
struct Open<'a> {
    target: Target,
    qkv: Arc<Qkv>,
    problem: Problem,
    policy: Policy,
    block: Option<MaskBlock>,
    pattern: Pattern,
    workspace: Box<dyn Workspace + 'a>,
    sample: Arc<RowSample>,
    /// Made when the first candidate is verified.
    oracle: Option<Oracle>,
    variants: BTreeMap<usize, Variant>,
    dense: Option<Variant>,
}

/// Why something did not work, as a reply.
fn failed(status: Status, reason: String) -> Reply {
    Reply::Failed { status, reason, errors: None, lost: false, work_us: 0.0 }
}

fn of_backend(error: &BackendError) -> Reply {
    let status = match error {
        BackendError::Build { .. } => Status::CompileError,
        _ => Status::LaunchError,
    };
    let lost = matches!(error, BackendError::Lost { .. });
    Reply::Failed { status, reason: error.to_string(), errors: None, lost, work_us: 0.0 }
}

impl<'a> Server<'a> {
    fn answer(&mut self, request: Request, replies: &mut (impl Write + Send)) -> Result<(), Failure> {
        let start = Instant::now();
        let elapsed = || start.elapsed().as_secs_f64() * 1e6;
        match request {
            Request::Open { target } => match self.load(target) {
                Ok(opened) => {
                    let opened = Box::new(opened);
                    send(replies, &Reply::Opened { opened, work_us: elapsed() })?;
                }
                Err(failure) => refuse(replies, &failure)?,
            },
            Request::Prepare { number, config } => {
                let reply = match self.prepare(number, &config) {
                    Ok(_) => Reply::Prepared,
                    Err(reply) => *reply,
                };
                send(replies, &reply)?;
            }
            Request::Verify { number, config, on } => {
                let verified = match on {
                    On::Input => self.verify(number, &config),
                    On::OtherInput => self.verify_elsewhere(&config),
                };
                let mut reply = match verified {
                    Ok(reply) => reply,
                    Err(reply) => *reply,
                };
                if let Reply::Verified { work_us, .. } | Reply::Failed { work_us, .. } = &mut reply {
                    *work_us = elapsed();
                }
                send(replies, &reply)?;
            }
            Request::Round { order } => {
                let mut from = Instant::now();
                self.watch.look_around();
                for item in order {
                    let mut reply = self.sample(item);
                    if let Reply::Sample { work_us, .. } = &mut reply {
                        *work_us = from.elapsed().as_secs_f64() * 1e6;
                    }
                    send(replies, &reply)?;
                    from = Instant::now();
                }
            }
            Request::Machine => {
                let machine = machine_of(self.backend, self.inputs.ordinal);
                send(replies, &Reply::Machine { machine, work_us: elapsed() })?;
            }
            Request::Save { number, path, heads } => {
                let reply = match self.save(number, &path, heads) {
                    Ok(()) => Reply::Saved { work_us: elapsed() },
                    Err(reply) => *reply,
                };
                send(replies, &reply)?;
            }
            Request::Build { configs, jobs } => self.build(&configs, jobs, replies)?,
        }
        Ok(())
    }

    fn load(&mut self, target: Target) -> Result<Opened, Failure> {
        // The old tensors go first: both together may not fit.
        self.open = None;
        let qkv = match target.frames {
            Some(frames) => Arc::new(self.inputs.qkv.cut_frames(frames)?),
            None => Arc::clone(&self.inputs.qkv),
        };
        let problem = qkv.problem();
        let policy: Policy = target.policy.parse()?;
        let block = target.block.map(MaskBlock::square);
        let cut = block.unwrap_or(MaskBlock::square(64));
        let orders = Arc::new(Orders::arranged(&problem, cut, &policy.arrangement(&problem)?)?);
        let mut workspace = self.backend.load(Arc::clone(&qkv), orders)?;
        let pattern = match block {
            None => Pattern::Dense,
            Some(_) => Pattern::Mask(workspace.build_mask(&policy)?.0),
        };
        let sample = input::error_sample(&problem, self.inputs.error_rows, self.inputs.seed)?;
        let mask = pattern.mask();
        let space = self.backend.space(&problem, block);
        let expected = self.backend.expected_seconds(&problem, &pattern, &space.configurations);
        let known = |seconds: f64| seconds.is_finite().then_some(seconds);
        let opened = Opened {
            problem,
            expected_seconds: expected.map(|all| all.into_iter().map(known).collect()),
            space,
            default: self.backend.default_parameters(&problem, block),
            density: mask.map_or(1.0, BlockMask::density),
            pairs: cost::pairs(&problem, mask),
            overlap: mask.map_or(1.0, BlockMask::neighbour_overlap),
        };
        let dense = self.backend.default_parameters(&problem, None);
        let dense = self.backend.configured(&problem, None, &dense).ok();
        self.open = Some(Open {
            target,
            qkv,
            problem,
            policy,
            block,
            pattern,
            workspace,
            sample,
            oracle: None,
            variants: BTreeMap::new(),
            dense,
        });
        Ok(opened)
    }

    fn open(&mut self) -> Result<&mut Open<'a>, Box<Reply>> {
        let nothing = || failed(Status::LaunchError, "no problem is open".to_owned());
        self.open.as_mut().ok_or_else(|| Box::new(nothing()))
    }

    fn prepare(&mut self, number: usize, config: &Parameters) -> Result<Variant, Box<Reply>> {
        let backend = self.backend;
        let open = self.open()?;
        let variant = backend
            .configured(&open.problem, open.block, config)
            .map_err(|ineligible| Box::new(failed(Status::Ineligible, ineligible.reason)))?;
        open.variants.insert(number, variant.clone());
        Ok(variant)
    }

    fn verify(&mut self, number: usize, config: &Parameters) -> Result<Reply, Box<Reply>> {
        let variant = self.prepare(number, config)?;
        self.prepare_references()?;
        let Self { open: Some(open), dense: Some((_, dense)), .. } = self else {
            return Err(Box::new(failed(Status::LaunchError, "no problem is open".to_owned())));
        };
        let Some(oracle) = &open.oracle else {
            return Err(Box::new(failed(Status::LaunchError, "no reference was computed".to_owned())));
        };
        held(open.workspace.as_mut(), &variant, &open.pattern, oracle, dense)
    }

    /// Holds a candidate against float64 on numbers of another seed, whose tokens fill no whole number of blocks.
    fn verify_elsewhere(&mut self, config: &Parameters) -> Result<Reply, Box<Reply>> {
        let (backend, seed) = (self.backend, self.inputs.seed);
        let open = self.open()?;
        let Problem { heads, head_dim, dtype, grid, .. } = open.problem;
        let spec = GenerateSpec { grid: RAGGED, heads: heads.min(2), head_dim, dtype, peak: None };
        let mut qkv = generate_video(&spec, !seed);
        // No map of sorted tokens fits another grid. Their blocks are runs, as those of a plain sequence are.
        let sorted = matches!(open.workspace.orders().q.arrangement(), Arrangement::Sorted(_));
        qkv.grid = grid.filter(|_| !sorted).map(|_| RAGGED);
        qkv.softmax_scale = open.qkv.softmax_scale;
        let qkv = Arc::new(qkv);
        let problem = qkv.problem();
        let refused = |reason: String| Box::new(failed(Status::Ineligible, reason));
        let block = open.block.unwrap_or(MaskBlock::square(64));
        let orders = Arc::new(Orders::new(&problem, block).map_err(|error| refused(error.to_string()))?);
        let variant = backend
            .configured(&problem, open.block, config)
            .map_err(|ineligible| refused(ineligible.reason))?;
        let launch = |error: BackendError| Box::new(of_backend(&error));
        let mut workspace = backend.load(Arc::clone(&qkv), Arc::clone(&orders)).map_err(launch)?;
        let pattern = match open.block {
            None => Pattern::Dense,
            Some(_) => {
                let mask = match workspace.build_mask(&open.policy) {
                    // A window for the input's grid need not fit this one, nor a map its tokens; any mask serves.
                    Err(BackendError::Policy(_)) => workspace.build_mask(&Policy::nabla(0.5)),
                    built => built,
                };
                Pattern::Mask(mask.map_err(launch)?.0)
            }
        };
        let sample = Arc::new(RowSample::all(problem.seqlen_q));
        let ordered =
            pattern.mask().map(|mask| OrderedMask { mask, q_order: &orders.q, kv_order: &orders.kv });
        let oracle = Oracle::new(&qkv, problem.softmax_scale, ordered, &sample);
        let dense = attention(&qkv, problem.softmax_scale, None, &sample, Arithmetic::Float64);
        let mut reply = held(workspace.as_mut(), &variant, &pattern, &oracle, &dense)?;
        if let Reply::Failed { reason, .. } = &mut reply {
            *reason = format!("on {} other tokens: {reason}", problem.seqlen_q);
        }
        Ok(reply)
    }

    /// Computes float64 attention, dense and on the mask, where that has not been done.
    fn prepare_references(&mut self) -> Result<(), Box<Reply>> {
        let known = self.dense.as_ref().map(|(frames, _)| *frames);
        let open = self.open()?;
        let scale = open.problem.softmax_scale;
        let missing = (known != Some(open.target.frames))
            .then(|| attention(&open.qkv, scale, None, &open.sample, Arithmetic::Float64));
        if open.oracle.is_none() {
            let orders = Arc::clone(open.workspace.orders());
            let ordered = open.pattern.mask().map(|mask| OrderedMask {
                mask,
                q_order: &orders.q,
                kv_order: &orders.kv,
            });
            open.oracle = Some(Oracle::new(&open.qkv, scale, ordered, &open.sample));
        }
        let frames = open.target.frames;
        if let Some(reference) = missing {
            self.dense = Some((frames, reference));
        }
        Ok(())
    }

    fn sample(&mut self, item: WireItem) -> Reply {
        let Some(open) = &mut self.open else {
            return failed(Status::LaunchError, "no problem is open".to_owned());
        };
        self.watch.before();
        let timed = match item {
            WireItem::Candidate(number) => match open.variants.get(&number) {
                Some(variant) => open.workspace.attention(variant, &open.pattern),
                None => return failed(Status::LaunchError, format!("candidate {number} is not known")),
            },
            WireItem::Dense => match &open.dense {
                Some(variant) => open.workspace.attention(variant, &Pattern::Dense),
                None => return failed(Status::Ineligible, "no dense kernel for this problem".to_owned()),
            },
            WireItem::Mask => open.workspace.build_mask(&open.policy).map(|(_, us)| us),
            WireItem::Reorder => open.workspace.time_reorder(),
        };
        match timed {
            Ok(time_us) if time_us.is_finite() => {
                Reply::Sample { time_us, conditions: self.watch.after(), work_us: 0.0 }
            }
            Ok(_) => failed(Status::LaunchError, "the device tells no time".to_owned()),
            Err(error) => of_backend(&error),
        }
    }

    /// Launches a candidate on poisoned outputs and writes what there is of it.
    fn save(&mut self, number: usize, path: &Path, heads: usize) -> Result<(), Box<Reply>> {
        let open = self.open()?;
        let unknown = || Box::new(failed(Status::LaunchError, format!("candidate {number} is not known")));
        let variant = open.variants.get(&number).ok_or_else(unknown)?;
        let workspace = &mut open.workspace;
        let mut launch = || -> Result<AttentionOutput, BackendError> {
            workspace.poison()?;
            workspace.attention(variant, &open.pattern)?;
            workspace.output()
        };
        let result = launch().map_err(|error| Box::new(of_backend(&error)))?;
        save(path, &open.problem, workspace.orders(), open.pattern.mask(), &result, heads).map_err(|error| {
            let reason = format!("cannot write {}: {error}", path.display());
            Box::new(Reply::Refused { code: Kind::Output as u8, reason })
        })
    }

    fn build(
        &mut self,
        configs: &[Parameters],
        jobs: usize,
        replies: &mut (impl Write + Send),
    ) -> Result<(), Failure> {
        let backend = self.backend;
        let Some(open) = &self.open else { return Ok(()) };
        let mut variants = Vec::new();
        let mut indices = Vec::new();
        for (index, config) in configs.iter().enumerate() {
            match backend.configured(&open.problem, open.block, config) {
                Ok(variant) => {
                    indices.push(index);
                    variants.push(variant);
                }
                Err(ineligible) => {
                    let failed = Some((Status::Ineligible, ineligible.reason));
                    send(replies, &Reply::Built(Build { index, failed }))?;
                }
            }
        }
        let (problem, block) = (open.problem, open.block);
        // Each is told as soon as it is done: the program verifies it while others are built.
        let told = Mutex::new((replies, Ok(())));
        backend.prebuild(&problem, block, &variants, jobs, &|i, result| {
            let failed = result.err().map(|not_built| {
                let status = if not_built.rejected { Status::Rejected } else { Status::CompileError };
                (status, not_built.reason)
            });
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let sent = send(&mut *told.0, &Reply::Built(Build { index: indices[i], failed }));
            if told.1.is_ok() {
                told.1 = sent;
            }
        });
        told.into_inner().unwrap_or_else(PoisonError::into_inner).1?;
        Ok(())
    }
}

/// A grid that blocks of no size fill, with more than one block along each axis.
const RAGGED: Grid = Grid { t: 3, h: 11, w: 13 };

/// Launches twice on poisoned outputs and holds the result against float64.
fn held(
    workspace: &mut dyn Workspace,
    variant: &Variant,
    pattern: &Pattern,
    oracle: &Oracle,
    dense: &Reference,
) -> Result<Reply, Box<Reply>> {
    let mut launch = || -> Result<AttentionOutput, BackendError> {
        workspace.poison()?;
        workspace.attention(variant, pattern)?;
        workspace.output()
    };
    let output = launch().map_err(|error| Box::new(of_backend(&error)))?;
    let again = launch().map_err(|error| Box::new(of_backend(&error)))?;
    let (accuracy, verdict) = verify(&output, &workspace.orders().q, oracle, dense, variant.rounding());
    let errors = Errors::from(&accuracy);
    let verdict = verdict.and_then(|()| same_bits(&output, &again));
    Ok(match verdict {
        Ok(()) => Reply::Verified { variant: variant.id.to_string(), errors, work_us: 0.0 },
        Err(reason) => Reply::Failed {
            status: Status::Incorrect,
            reason,
            errors: Some(errors),
            lost: false,
            work_us: 0.0,
        },
    })
}

/// Says whether two launches agree bit for bit, as kernels without atomics do: what differs depends on an order that
/// nothing fixes.
fn same_bits(a: &AttentionOutput, b: &AttentionOutput) -> Result<(), String> {
    let differing =
        |x: &[f32], y: &[f32]| x.iter().zip(y).filter(|(x, y)| x.to_bits() != y.to_bits()).count();
    match differing(&a.out, &b.out) + differing(&a.lse, &b.lse) {
        0 => Ok(()),
        n => Err(format!(
            "two launches on the same inputs differ in {n} of {} outputs",
            a.out.len() + a.lse.len()
        )),
    }
}
