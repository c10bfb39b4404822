//! What other programs are compared by: inputs and results as files, and one device against another.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Stdio},
};

use nabla_host::{
    backend::{EmulatedArch, EmulatorOptions, KernelBackend, emulator_backend},
    check::{Outcome, Verdict, check_against},
    codegen::{instances::INSTANCES, variant_id},
    io::{Element, NamedTensor, ReadOptions, read_qkv, write_safetensors},
};
use nabla_tests::nabla;
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

/// Edge blocks are ragged.
const INPUT: &str = "video:1,12,19,2,64,f32,peak=7";
const TOKENS: usize = 12 * 19;
const HEAD_DIM: usize = 64;

#[test]
fn inputs_written_to_a_file_are_those_that_are_made_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("inputs.safetensors");
    let output = nabla().args(["inputs", "--generate", INPUT, "--out"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = read_qkv(&file, &ReadOptions::default()).unwrap();
    let made = nabla_host::generate::generate_video(&INPUT.parse().unwrap(), 0);
    assert_eq!((read.content_hash(), read.grid), (made.content_hash(), made.grid));
    assert!(String::from_utf8_lossy(&output.stdout).contains(&made.short_hash()));
}

#[test]
fn inputs_that_cannot_be_written_are_one_error() {
    let output = nabla().args(["inputs", "--out", "/no/such/folder/x.safetensors"]).output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/folder"));
}

/// A worker on the CPU.
struct Worker {
    process: Child,
    replies: BufReader<ChildStdout>,
}

impl Worker {
    fn start() -> Self {
        let mut command = nabla();
        command.args(["worker", "--backend", "cpu", "--threads", "2", "--no-pin", "--generate", INPUT]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let replies = BufReader::new(process.stdout.take().unwrap());
        let mut worker = Self { process, replies };
        assert_eq!(worker.reply()["reply"], "hello");
        worker
    }

    fn reply(&mut self) -> Value {
        let mut line = String::new();
        self.replies.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.process.stdin.as_mut().unwrap(), "{request}").unwrap();
        self.reply()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn integers(tensor: &TensorView<'_>) -> Vec<i32> {
    tensor.data().chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn numbers(tensor: &TensorView<'_>) -> Vec<f32> {
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn a_worker_saves_mask_order_and_results() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results.safetensors");
    let mut worker = Worker::start();
    let target = json!({ "frames": null, "policy": "nabla-0.5", "block": 64 });
    let opened = worker.ask(&json!({ "ask": "open", "target": target }));
    let save = |number, path: &Path| json!({ "ask": "save", "number": number, "path": path, "heads": 1 });
    let unknown = worker.ask(&save(0, &file));
    assert!(unknown["reason"].as_str().unwrap().contains("candidate 0 is not known"), "{unknown}");
    let config = &opened["opened"]["default"];
    let prepared = worker.ask(&json!({ "ask": "prepare", "number": 0, "config": config }));
    assert_eq!(prepared["reply"], "prepared", "{prepared}");
    assert_eq!(worker.ask(&save(0, &file))["reply"], "saved");

    let bytes = fs::read(&file).unwrap();
    let saved = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: &str| saved.tensor(name).unwrap();
    // 12 rows and 19 columns make 2 x 3 blocks.
    let (blocks, heads) = (6, 2);
    assert_eq!(tensor("kv_num_blocks").shape(), [1, heads, blocks]);
    assert_eq!(tensor("kv_indices").shape()[..3], [1, heads, blocks]);
    assert_eq!(tensor("out").shape(), [1, TOKENS, HEAD_DIM]);
    assert_eq!(tensor("lse").shape(), [1, TOKENS]);
    let mut order = integers(&tensor("q_order"));
    let starts = integers(&tensor("q_starts"));
    assert_eq!((starts.len(), starts[0], starts[blocks] as usize), (blocks + 1, 0, TOKENS));
    assert_eq!((order[..9].to_vec(), starts[1]), ((0..8).chain([19]).collect::<Vec<i32>>(), 64));
    order.sort_unstable();
    assert_eq!(order, (0..TOKENS as i32).collect::<Vec<_>>());
    let kept: i32 = integers(&tensor("kv_num_blocks")).iter().sum();
    let density = opened["opened"]["density"].as_f64().unwrap();
    assert!((f64::from(kept) / (heads * blocks * blocks) as f64 - density).abs() < 1e-9);

    // What `nabla run` writes is the same in the order of the input.
    let whole = folder.path().join("run.safetensors");
    let mut run = nabla();
    run.args(["run", "--backend", "cpu", "--threads", "2", "--no-pin", "--generate", INPUT]);
    let output = run.args(["--policy", "nabla-0.5", "--repeat", "1", "--out"]).arg(&whole).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = fs::read(&whole).unwrap();
    let run = SafeTensors::deserialize(&bytes).unwrap();
    let (in_order, in_blocks) = (numbers(&run.tensor("out").unwrap()), numbers(&tensor("out")));
    for (position, &token) in integers(&tensor("q_order")).iter().enumerate() {
        let (a, b) = (&in_order[token as usize * HEAD_DIM..], &in_blocks[position * HEAD_DIM..]);
        let close = a.iter().zip(b).take(HEAD_DIM).all(|(a, b)| (a - b).abs() <= 1e-5);
        assert!(close, "token {token} at {position}");
    }
}

#[test]
fn a_worker_verifies_and_saves_heads_of_other_orders() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    // 228 tokens in 4 runs; rows first in one head, columns first in the other.
    let cells: Vec<u8> = (0..32).map(|n| u8::from(n % 3 != 1)).collect();
    let mask = NamedTensor { name: "mask", shape: &[2, 4, 4], element: Element::U8, bytes: &cells };
    write_safetensors(&file("map.safetensors"), &[mask], &Default::default()).unwrap();
    let policies = ["thw", "wht"].map(|axes| format!("paro-{axes}:{}", file("map.safetensors").display()));
    fs::write(file("heads.json"), json!(policies).to_string()).unwrap();

    let mut worker = Worker::start();
    let policy = format!("heads:{}", file("heads.json").display());
    let target = json!({ "frames": null, "policy": policy, "block": 64 });
    let opened = worker.ask(&json!({ "ask": "open", "target": target }));
    let config = &opened["opened"]["default"];
    for on in ["input", "other_input"] {
        let verified = worker.ask(&json!({ "ask": "verify", "number": 0, "config": config, "on": on }));
        assert_eq!(verified["reply"], "verified", "{verified}");
    }
    let out = file("results.safetensors");
    let save = json!({ "ask": "save", "number": 0, "path": out, "heads": 2 });
    assert_eq!(worker.ask(&save)["reply"], "saved");
    let bytes = fs::read(&out).unwrap();
    let saved = SafeTensors::deserialize(&bytes).unwrap();
    let order = saved.tensor("q_order").unwrap();
    assert_eq!(order.shape(), [1, 2, TOKENS]);
    let order = integers(&order);
    assert_eq!((&order[..3], &order[TOKENS..TOKENS + 3]), (&[0, 1, 2][..], &[0, 19, 38][..]));
    assert_eq!(integers(&saved.tensor("q_starts").unwrap()), [0, 64, 128, 192, 228]);

    let mixed = json!({ "frames": null, "policy": format!("nabla-0.5@{policy}"), "block": 64 });
    let refused = worker.ask(&json!({ "ask": "open", "target": mixed }));
    assert_eq!((&refused["reply"], &refused["code"]), (&json!("refused"), &json!(3)), "{refused}");
}

#[test]
fn a_file_that_cannot_be_written_is_refused() {
    let mut worker = Worker::start();
    let target = json!({ "frames": null, "policy": "dense", "block": null });
    let opened = worker.ask(&json!({ "ask": "open", "target": target }));
    let config = &opened["opened"]["default"];
    worker.ask(&json!({ "ask": "prepare", "number": 3, "config": config }));
    let refused = worker.ask(&json!({ "ask": "save", "number": 3, "path": "/no/such/x", "heads": 1 }));
    assert_eq!((&refused["reply"], &refused["code"]), (&json!("refused"), &json!(6)));
}

fn emulator(eager: bool) -> Box<dyn KernelBackend> {
    let arch = EmulatedArch::Sm80;
    // A change may make a loop endless.
    let instruction_budget = Some(30_000_000);
    let options = EmulatorOptions { arch, eager, instruction_budget, ..EmulatorOptions::default() };
    emulator_backend(&options).unwrap()
}

/// Compares two devices on one kernel and one case.
fn compared([a, b]: [&dyn KernelBackend; 2], kernel: &str, case: &str) -> Outcome {
    let mut outcomes = Vec::new();
    let wanted = |subject: &str, name: &str| subject == kernel && name == case;
    check_against(a, b, INSTANCES, &wanted, &mut |outcome| outcomes.push(outcome)).unwrap();
    assert_eq!(outcomes.len(), 1, "{kernel} on {case}");
    outcomes.remove(0)
}

/// Kernels, each with a case and a change of its code that shows there.
const PLANTED: [(&str, &str, [&str; 2]); 2] = [
    // The base of the exponential, one part in a hundred off.
    ("plain_sm80_d64_bf16_w4", "batch block 64", ["0f3FB8AA3B", "0f3FBAAA3B"]),
    // A sum that loses its sign.
    ("reorder_sm80_d64_bf16_w4", "ragged-grid", ["add.rn.f32", "sub.rn.f32"]),
];

#[test]
fn the_same_code_agrees_with_itself_and_each_planted_difference_is_reported() {
    for (kernel, case, [from, to]) in PLANTED {
        let (device, other) = (emulator(true), emulator(false));
        let both = [&*device, &*other];
        let sound = compared(both, kernel, case);
        assert_eq!(sound.verdict, Verdict::Passed, "{kernel}");
        assert!(sound.counts["elements compared"] > 0);

        let instance = INSTANCES.iter().find(|instance| variant_id(instance) == kernel).unwrap();
        let code = device.code(instance).unwrap().ptx;
        assert!(code.contains(from), "{kernel} has no {from}");
        device.substitute(instance, &code.replacen(from, to, 1)).unwrap();
        let Verdict::Failed(reason) = compared(both, kernel, case).verdict else {
            panic!("{kernel} with {to} for {from} agrees")
        };
        println!("{kernel}: {reason}");
    }
}

#[test]
fn only_devices_that_run_ptx_can_be_compared() {
    let output = nabla().args(["check", "--backend", "cpu", "--against", "emulator"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--backend cuda or emulator"));
}

#[test]
fn the_emulator_agrees_with_itself_on_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("against.json");
    let mut command = nabla();
    command.args(["check", "--backend", "emulator", "--against", "emulator", "--arch", "sm_80"]);
    let output = command.args(["--filter", "reorder_sm80_d64", "--json"]).arg(&json).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let suite = &written["suites"][0];
    assert_eq!((&suite["passed"], &suite["failed"]), (&json!(5), &json!(0)));
    assert_eq!(suite["name"], "emulator of sm_80 eager against late");
}
