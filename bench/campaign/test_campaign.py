"""Tests of what needs neither torch nor the program: python3 -m unittest discover bench/campaign."""

import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import field
import ratios
import report
import shapes
import state
import units
from worker import Worker, WorkerError

IDENTITY = "0123 cpu"


class Folder(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="nabla-campaign-test-")
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)


class Ratios(unittest.TestCase):
    def test_ranks_are_those_of_the_binomial_distribution(self):
        # Textbook values of the sign test's interval.
        self.assertIsNone(ratios.interval_ranks(5))
        self.assertEqual(ratios.interval_ranks(6), (0, 5))
        self.assertEqual(ratios.interval_ranks(9), (1, 7))
        self.assertEqual(ratios.interval_ranks(11), (1, 9))
        self.assertEqual(ratios.interval_ranks(20), (5, 14))

    def test_drift_that_falls_on_both_sides_cancels(self):
        ours = [100 * 1.1**i for i in range(9)]
        self.assertEqual([round(x, 9) for x in ratios.paired_ratio(ours, [2.5 * x for x in ours])], [2.5] * 3)

    def test_few_samples_have_a_median_and_no_interval(self):
        self.assertEqual(ratios.median_interval([3, 1, 2]), (2, None, None))
        self.assertEqual(ratios.with_interval(1.5, None, None, unit="x"), "1.50x")
        self.assertEqual(ratios.with_interval(1.5, 1.4, 1.6, unit="x"), "1.50x (1.40-1.60)")

    def test_sides_of_different_length_are_refused(self):
        with self.assertRaises(ValueError):
            ratios.paired_ratio([1, 2], [1])


class Shapes(unittest.TestCase):
    def test_a_specification_is_what_the_program_takes(self):
        wan = shapes.SHAPES[0]
        self.assertEqual((wan.tokens, wan.is_ragged), (75_600, True))
        self.assertEqual(wan.spec, "video:21,45,80,40,128,bf16,peak=7")
        self.assertEqual(wan.cut(3, 1).spec, "video:3,45,80,1,128,bf16,peak=7")

    def test_names_tell_shapes_apart(self):
        for backend in ("cuda", "cpu", "emulator"):
            for smoke in (False, True):
                names = [shape.name for shape in shapes.shapes_for(backend, smoke)]
                self.assertEqual(len(names), len(set(names)))


class StateOfACampaign(Folder):
    def state(self):
        return state.State(self.folder / "campaign.json", IDENTITY)

    def test_what_a_kill_leaves_is_cut_and_runs_again(self):
        first = self.state()
        first.start("a")
        first.end("a", "done", "", 1.5)
        first.start("b")
        again = self.state()
        self.assertTrue(again.is_finished("a"))
        self.assertFalse(again.is_finished("b"))
        self.assertEqual(again.units["b"]["status"], "cut")
        self.assertEqual(again.counts(["a", "b", "c"]), {"done": 1, "failed": 0, "skipped": 0, "left": 2})

    def test_seconds_of_all_attempts_add_up_and_attempts_end(self):
        one = self.state()
        for _ in range(state.MOST_ATTEMPTS):
            one.start("a")
            one.end("a", "cut", "it did not end", 2)
        self.assertEqual(one.units["a"]["seconds"], 2.0 * state.MOST_ATTEMPTS)
        self.assertEqual(one.units["a"]["status"], "failed")

    def test_the_state_of_another_pack_is_refused(self):
        self.state().save()
        with self.assertRaisesRegex(SystemExit, "another pack"):
            state.State(self.folder / "campaign.json", "4567 cpu")

    def test_a_budget_runs_down_to_nothing(self):
        now = [100.0]
        budget = state.Budget(30, clock=lambda: now[0])
        self.assertEqual(budget.left(), 30)
        now[0] = 131.0
        self.assertEqual(budget.left(), 0)


class Units(Folder):
    def unit(self, script):
        return units.Unit("u", "check", lambda _: [sys.executable, "-c", script], cap_s=10)

    def test_every_pack_has_units_of_different_names(self):
        for backend in ("cuda", "cpu", "emulator"):
            for smoke in (False, True):
                plan = units.units_of(units.Pack(self.folder, {"backend": backend, "smoke": smoke}))
                names = [unit.name for unit in plan]
                self.assertEqual(len(names), len(set(names)))
                for unit in plan:
                    self.assertTrue(all(isinstance(word, str) for word in unit.command(self.folder)), unit.name)

    def test_a_run_that_has_a_log_goes_on_with_it(self):
        plan = units.units_of(units.Pack(self.folder, {"backend": "cuda", "smoke": False}))
        sweep = next(unit for unit in plan if unit.name == "sweep-clip")
        self.assertNotIn("--resume", sweep.command(self.folder))
        (self.folder / "runs" / "sweep-clip").mkdir(parents=True)
        (self.folder / "runs" / "sweep-clip" / "records.jsonl").touch()
        self.assertEqual(sweep.command(self.folder)[1:3], ["sweep", "--resume"])

    def test_units_end_as_their_commands_do(self):
        self.assertEqual(units.run(self.unit("print('fine')"), self.folder, 10), ("done", ""))
        status, reason = units.run(self.unit("raise SystemExit('error: no room')"), self.folder, 10)
        self.assertEqual((status, reason), ("failed", "exit code 1: error: no room"))
        self.assertIn("fine", (self.folder / "logs" / "u.log").read_text())

    def test_a_unit_that_does_not_end_is_cut_with_what_it_started(self):
        script = (
            "import subprocess, sys, time\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
            "print(child.pid, flush=True); time.sleep(60)"
        )
        status, _ = units.run(self.unit(script), self.folder, 4)
        self.assertEqual(status, "cut")
        pids = [line for line in (self.folder / "logs" / "u.log").read_text().splitlines() if line.isdigit()]
        self.assertEqual(len(pids), 1)
        stat = Path(f"/proc/{pids[0]}/stat")
        # Gone, or ended and not yet collected by the system; a kill takes a moment to arrive.
        deadline = time.monotonic() + 10
        while stat.exists() and (runs := stat.read_text().split()[2] != "Z") and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(stat.exists() and runs)


class Workers(unittest.TestCase):
    def worker(self, lines, timeout_s=10):
        script = f"import sys\nprint('{{\"reply\": \"hello\"}}', flush=True)\nfor line in sys.stdin:\n {lines}"
        worker = Worker([sys.executable, "-c", script], timeout_s)
        self.addCleanup(worker.close)
        return worker

    def test_a_refusal_is_told_with_its_reason(self):
        worker = self.worker("print('{\"reply\": \"refused\", \"code\": 2, \"reason\": \"no such policy\"}', flush=True)")
        with self.assertRaisesRegex(WorkerError, "open: no such policy"):
            worker.open("nabla-2", 64)

    def test_one_that_hangs_is_ended(self):
        worker = self.worker("import time; time.sleep(60)", timeout_s=60)
        # A busy machine may take long to start it.
        worker.timeout_s = 0.2
        with self.assertRaisesRegex(WorkerError, "ended during open"):
            worker.open("dense", None)

    def test_items_that_fail_have_no_time(self):
        worker = self.worker(
            "print('{\"reply\": \"sample\", \"time_us\": 5.0}\\n{\"reply\": \"failed\", \"reason\": \"x\"}', flush=True)"
        )
        self.assertEqual(worker.time_us(["dense", "mask"]), [5.0, None])


class FieldLog(Folder):
    def test_what_is_not_finished_is_measured_again(self):
        path = self.folder / "field" / "small.jsonl"
        log = field.Log(path)
        log.write(kind="peer", policy="dense")
        log.write(kind="finished", policy="dense")
        log.write(kind="peer", policy="nabla-0.5")
        with open(path, "a") as file:
            file.write('{"kind": "fini')
        again = field.Log(path)
        self.assertEqual(again.done, {"dense"})
        again.write(kind="finished", policy="nabla-0.5")
        self.assertEqual(len(path.read_text().splitlines()), 3)


class FakeWorker:
    """Times configurations as told."""

    def __init__(self, times):
        self.times = times
        self.verified = []
        self.asked = 0

    def open(self, policy, block):
        return {"space": {"configurations": [{"block_m": n} for n in range(len(self.times))]}, "default": {"block_m": 0}}

    def prepare(self, number, config):
        pass

    def verify(self, number, config):
        self.verified.append(number)

    def time_us(self, items):
        self.asked += len(items)
        return [self.times[item["candidate"]] for item in items]


class Choosing(unittest.TestCase):
    def test_the_fastest_that_works_is_taken_and_verified(self):
        worker = FakeWorker([5.0, None, 2.0, 2.1])
        ours = field.Ours(worker, "nabla-0.5", has_times=True)
        self.assertEqual((ours.number, worker.verified, ours.config), (2, [2], "block_m=2"))
        # After the first round only the two that are near.
        self.assertEqual(worker.asked, 4 + 2 + 2)

    def test_without_times_the_default_is_taken(self):
        self.assertEqual(field.Ours(FakeWorker([5.0, 2.0]), "dense", has_times=False).number, 0)

    def test_a_space_in_which_nothing_works_is_told(self):
        with self.assertRaisesRegex(WorkerError, "no configuration"):
            field.Ours(FakeWorker([None]), "dense", has_times=True)


class Report(unittest.TestCase):
    ROW = {
        "kind": "peer", "shape": "wan-720p", "policy": "nabla-0.7", "dtype": "bf16", "density": 0.2, "padded": True,
        "comparison": "Wan: attention", "peer": "Flex | tuned", "note": "agrees", "ours_us": [10.0] * 9,
        "theirs_us": [25.0] * 9, "ours": "block_m=64", "convention": "cold",
    }  # fmt: skip

    def test_a_ratio_says_how_sure_it_is_and_that_blocks_were_padded(self):
        rows = report.ratio_table([report.peer_record(self.ROW)])
        self.assertEqual(rows[1][2:], ("0.010", "0.025", "2.50x (2.50-2.50)", "padded; agrees"))
        self.assertIn("Flex \\| tuned", report.markdown(rows))
        self.assertNotIn("<script>", report.table([("a",), ("<script>",)]))

    def test_rates_are_those_of_the_kept_pairs(self):
        row = {
            "shape": "s", "policy": "nabla-0.5", "dtype": "bf16", "density": 0.25, "config": "", "pairs": 250_000,
            "heads": 1, "head_dim": 128, "tokens": 1000,
            "parts_us": {"attention": [10.0], "dense": [40.0], "mask": [10.0], "reorder": []},
        }  # fmt: skip
        record = report.split_record(row)
        self.assertEqual(record["tflops_executed"], "12.800")
        self.assertEqual(record["tflops_dense_equivalent"], "51.200")
        self.assertEqual((record["speedup_over_dense"], record["speedup_with_mask"]), ("4.000", "2.000"))
        self.assertEqual(record["reorder_us"], "")


if __name__ == "__main__":
    unittest.main()
