"""Tests of what needs neither torch nor the program: python3 -m unittest discover bench/campaign."""

import sys
import tempfile
import time
import types
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "peers")]

import check_campaign
import field
import fieldlog
import inputs
import plan
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
        self.assertEqual(again.counts(["a", "b", "c"]), {"done": 1, "bounded": 0, "failed": 0, "skipped": 0, "left": 2})

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

    def test_a_bounded_unit_keeps_its_results_whatever_comes_after(self):
        one = self.state()
        one.start("a")
        one.end("a", "bounded", "3 of 7 policies", 5)
        one.pass_over("a")
        one.start("a")
        # Killed here.
        again = self.state()
        self.assertEqual((again.status("a"), again.units["a"]["reason"]), ("bounded", "3 of 7 policies"))
        self.assertFalse(again.is_finished("a"))
        self.assertEqual(again.counts(["a"])["bounded"], 1)

    def test_what_there_was_no_time_for_is_named(self):
        one = self.state()
        one.pass_over("a")
        self.assertEqual((one.status("a"), one.attempts("a")), ("not reached", 0))
        self.assertEqual(one.counts(["a"])["left"], 1)


class Time:
    """A clock that is put forward by hand."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def fake_unit(name, weight=1, least_s=5):
    return types.SimpleNamespace(name=name, weight=weight, least_s=least_s)


class SharesOfABudget(unittest.TestCase):
    def run_all(self, of, seconds, used=lambda share: share):
        """Gives each unit its share, of which it uses a part; returns the shares."""
        clock = Time()
        shares = plan.Shares(plan.Budget(seconds, clock), of)
        taken = []
        for unit in of:
            share = shares.take(unit)
            taken.append(share)
            clock.now += 0 if share is None else used(share)
        self.assertLessEqual(clock.now, 100.0 + seconds + 1e-9)
        return taken

    def test_a_budget_runs_down_to_nothing(self):
        clock = Time()
        budget = plan.Budget(30, clock)
        self.assertEqual(budget.left(), 30)
        clock.now += 31
        self.assertEqual(budget.left(), 0)

    def test_what_is_beyond_the_leasts_goes_by_weight_and_the_sum_is_the_budget(self):
        of = [fake_unit("a", weight=3), fake_unit("b", weight=1), fake_unit("c", weight=1, least_s=10)]
        self.assertEqual([round(share, 6) for share in self.run_all(of, 120)], [65, 25, 30])

    def test_what_ends_early_gives_its_time_to_the_rest(self):
        of = [fake_unit("a"), fake_unit("b"), fake_unit("c")]
        shares = self.run_all(of, 90, used=lambda share: share / 2)
        self.assertEqual(shares, [30, 37.5, 56.25])

    def test_where_the_leasts_do_not_fit_those_that_tell_most_get_theirs(self):
        of = [fake_unit("a", weight=1, least_s=8), fake_unit("b", weight=9, least_s=8), fake_unit("c", least_s=3)]
        self.assertEqual(self.run_all(of, 12), [8, None, 4])
        self.assertEqual(self.run_all(of, 0), [None] * 3)

    def test_a_unit_out_of_turn_is_refused(self):
        shares = plan.Shares(plan.Budget(10), [fake_unit("a")])
        with self.assertRaisesRegex(ValueError, "b is not the next"):
            shares.take(fake_unit("b"))

    def test_every_unit_of_every_pack_gets_its_least_in_one_call(self):
        for backend in ("cuda", "cpu"):
            of = units.units_of(units.Pack(Path("/nowhere"), {"backend": backend, "smoke": False}))
            # As where compute-sanitizer is there.
            of = [unit for unit in of if not unit.skip or unit.name.startswith("sanitizer")]
            for unit, share in zip(of, self.run_all(of, 570 - 20 - 10), strict=True):
                self.assertGreaterEqual(share, unit.least_s, unit.name)

    def test_a_command_is_told_less_than_what_ends_it(self):
        for seconds in (3, 10, 100):
            self.assertLess(plan.told(seconds), seconds)


class InputsOfShapes(Folder):
    SHAPE = shapes.SMOKE_SHAPES[0]

    def inputs(self, script):
        pack = types.SimpleNamespace(nabla=lambda *words: [sys.executable, "-c", script, *map(str, words)])
        return inputs.Inputs(pack, self.folder)

    def test_an_input_is_made_once_and_named_from_the_results_folder(self):
        made = self.inputs("import sys; open(sys.argv[-1], 'x').write('made')")
        expected = (["--input", "inputs/small.safetensors"], "")
        self.assertEqual([made.options(self.SHAPE, 10) for _ in range(2)], [expected] * 2)
        self.assertEqual((self.folder / "inputs/small.safetensors").read_text(), "made")
        made.drop()
        self.assertFalse((self.folder / "inputs").exists())

    def test_the_clip_needs_none(self):
        self.assertEqual(self.inputs("1 / 0").options(shapes.CLIP, 10), (["--dtype", "bf16"], ""))

    def test_what_cannot_be_made_is_told_and_leaves_nothing(self):
        for script, seconds, reason in (
            ("raise SystemExit('error: no room')", 10, "error: no room"),
            ("import sys, time; open(sys.argv[-1], 'x'); time.sleep(60)", 1, "not made within 1 s"),
        ):
            options, why_not = self.inputs(script).options(self.SHAPE, seconds)
            self.assertEqual(options, self.SHAPE.input_options)
            self.assertIn(reason, why_not)
            self.assertEqual(list((self.folder / "inputs").iterdir()), [])

    def test_a_disk_without_room_is_told_in_numbers(self):
        huge = shapes.Shape("huge", "", (10**6, 1000, 1000), 40, 128)
        options, why_not = self.inputs("1 / 0").options(huge, 10)
        self.assertEqual(options, huge.input_options)
        self.assertRegex(why_not, r"its input takes 30720000.00 GB and .*inputs has [0-9.]+ GB free")


class Units(Folder):
    def unit(self, script):
        return units.Unit("u", "check", lambda *_: [sys.executable, "-c", script], weight=1, least_s=1)

    def test_every_pack_has_units_of_different_names(self):
        for backend in ("cuda", "cpu", "emulator"):
            for smoke in (False, True):
                plan = units.units_of(units.Pack(self.folder, {"backend": backend, "smoke": smoke}))
                names = [unit.name for unit in plan]
                self.assertEqual(len(names), len(set(names)))
                for unit in plan:
                    words = unit.command(self.folder, ["--input", "x"], 7)
                    self.assertTrue(all(isinstance(word, str) for word in words), unit.name)

    def test_a_run_that_has_a_log_goes_on_with_it(self):
        plan = units.units_of(units.Pack(self.folder, {"backend": "cuda", "smoke": False}))
        sweep = next(unit for unit in plan if unit.name == "sweep-clip")
        self.assertNotIn("--resume", sweep.command(self.folder, [], 7))
        (self.folder / "runs" / "sweep-clip").mkdir(parents=True)
        (self.folder / "runs" / "sweep-clip" / "records.jsonl").touch()
        words = sweep.command(self.folder, [], 9)
        self.assertEqual((words[1:3], words[-2:]), (["sweep", "--resume"], ["--budget-seconds", "9"]))

    def test_units_end_as_their_commands_do(self):
        self.assertEqual(units.run(self.unit("print('fine')"), self.folder, 10), ("done", ""))
        status, reason = units.run(self.unit("raise SystemExit('error: no room')"), self.folder, 10)
        self.assertEqual((status, reason), ("failed", "exit code 1: error: no room"))
        self.assertIn("fine", (self.folder / "logs" / "u.log").read_text())

    def test_a_unit_that_ends_by_its_share_says_how_far_it_got(self):
        unit = self.unit("print('bounded: 3 of 7 policies')")
        self.assertEqual(units.run(unit, self.folder, 10), ("bounded", "3 of 7 policies"))
        # What an earlier attempt said does not count.
        unit.command = lambda *_: [sys.executable, "-c", "print('all of it')"]
        self.assertEqual(units.run(unit, self.folder, 10), ("done", ""))

    def test_a_comparison_that_is_killed_counts_the_policies_it_has(self):
        pack = units.Pack(self.folder, {"backend": "cuda", "smoke": False})
        unit = next(unit for unit in units.units_of(pack) if unit.name == "field-wan-720p")
        self.assertEqual(unit.reached(self.folder), "")
        for policy in ("nabla-0.7", "nabla-0.9", "nabla-0.7"):
            log = fieldlog.Log(self.folder / "field" / "wan-720p.jsonl")
            log.finish(False, policy=policy)
        self.assertEqual(unit.reached(self.folder), "2 of 7 policies")

    def test_a_unit_that_is_killed_is_bounded_where_it_left_results(self):
        unit = self.unit("import time; time.sleep(60)")
        unit.reached = lambda results: "2 configurations"
        self.assertEqual(units.run(unit, self.folder, 3), ("bounded", "2 configurations"))

    def test_a_unit_that_does_not_end_is_cut_with_what_it_started(self):
        script = (
            "import subprocess, sys, time\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
            "print(child.pid, flush=True); time.sleep(60)"
        )
        status, _ = units.run(self.unit(script), self.folder, 6)
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
        log = fieldlog.Log(path)
        log.write(kind="peer", policy="dense")
        log.finish(True, policy="dense")
        log.write(kind="peer", policy="nabla-0.5")
        with open(path, "a") as file:
            file.write('{"kind": "fini')
        again = fieldlog.Log(path)
        self.assertEqual(again.whole, {"dense"})
        again.finish(True, policy="nabla-0.5")
        self.assertEqual(len(path.read_text().splitlines()), 3)

    def test_what_is_measured_in_part_stands_until_it_is_measured_again(self):
        path = self.folder / "small.jsonl"
        log = fieldlog.Log(path)
        log.write(kind="peer", policy="dense", rounds=3)
        log.finish(False, policy="dense")
        again = fieldlog.Log(path)
        self.assertEqual((again.whole, again.measured), (set(), {"dense"}))
        again.write(kind="peer", policy="dense", rounds=11)
        rounds = lambda: [row["rounds"] for row in fieldlog.latest(fieldlog.rows_in(path)) if row["kind"] == "peer"]
        self.assertEqual(rounds(), [3])
        again.finish(True, policy="dense")
        self.assertEqual(rounds(), [11])


class OrderOfAField(unittest.TestCase):
    def test_the_headline_comes_first(self):
        policies = list(shapes.policies_of(shapes.thresholds_for("cuda", False)))
        self.assertEqual(policies[:4], ["nabla-0.7", "nabla-0.9", "nabla-0.4", "dense"])
        self.assertEqual(len(policies), 7)

    def test_the_first_policy_is_begun_and_none_that_cannot_end(self):
        now = Time()
        clock = field.Clock(10, now)
        # Starting up has used all of it.
        now.now += 11
        self.assertTrue(clock.begin(7))
        self.assertEqual(clock.left(), 0)
        now.now += 2
        clock.finish()
        self.assertFalse(clock.begin(6))

    def test_what_is_left_is_divided_among_the_next_three(self):
        now = Time()
        clock = field.Clock(90, now)
        self.assertTrue(clock.begin(7))
        self.assertEqual(clock.left(), 30)
        now.now += 10
        clock.finish()
        self.assertTrue(clock.begin(6))
        self.assertAlmostEqual(clock.left(), 80 / 3)
        # As long as the one before does not fit any more.
        now.now += 71
        self.assertFalse(clock.begin(1))

    def test_what_the_first_policy_compiles_is_expected_of_no_other(self):
        now = Time()
        clock = field.Clock(40, now)
        self.assertTrue(clock.begin(7))
        now.now += 25
        clock.compiled(22)
        # Its third is over, but what would others do with the rest: its own peers may have it.
        self.assertEqual((clock.left(), clock.spare()), (0, 15))
        clock.finish()
        self.assertTrue(clock.begin(6))
        self.assertEqual((clock.left(), clock.spare()), (5, 5))
        now.now += 12
        # Later ones are expected to take as long as they took, whatever they compiled.
        clock.compiled(12)
        clock.finish()
        self.assertFalse(clock.begin(5))


LONG = field.Clock(1e6)


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
        ours = field.Ours(worker, "nabla-0.5", has_times=True, clock=LONG)
        self.assertEqual((ours.number, worker.verified, ours.config), (2, [2], "block_m=2"))
        # After the first round only the two that are near.
        self.assertEqual(worker.asked, 4 + 2 + 2)

    def test_with_little_time_the_default_is_tried_before_others(self):
        now = Time()
        worker = FakeWorker([5.0, 1.0, 2.0])
        worker.open = lambda policy, block: {
            "space": {"configurations": [{"block_m": n} for n in range(3)]}, "default": {"block_m": 2}
        }  # fmt: skip
        worker.prepare = lambda number, config: setattr(now, "now", now.now + 4)
        clock = field.Clock(10, now)
        ours = field.Ours(worker, "nabla-0.5", has_times=True, clock=clock)
        self.assertEqual((ours.number, ours.is_whole), (2, False))

    def test_without_times_the_default_is_taken(self):
        self.assertEqual(field.Ours(FakeWorker([5.0, 2.0]), "dense", has_times=False, clock=LONG).number, 0)

    def test_a_space_in_which_nothing_works_is_told(self):
        with self.assertRaisesRegex(WorkerError, "no configuration"):
            field.Ours(FakeWorker([None]), "dense", has_times=True, clock=LONG)


class Report(unittest.TestCase):
    def test_what_was_not_measured_is_listed_with_its_reason(self):
        field_unit = units.Unit("field-small", "field", None, 1, 1, shapes.SMOKE_SHAPES[0])
        rows = [
            {"kind": "finished", "shape": "small", "policy": "dense"},
            {"kind": "missing", "shape": "small", "policy": "dense", "peer": "SDPA", "reason": "no GPU"},
        ]
        for entry, why in (
            ({}, fieldlog.UNREACHED),
            ({"status": "bounded", "reason": "1 of 2 policies"}, fieldlog.UNREACHED),
            ({"status": "failed", "reason": "exit code 4"}, "exit code 4"),
        ):
            made = types.SimpleNamespace(units={"field-small": entry})
            listed = report.unmeasured([field_unit], made, rows, ["nabla-0.5", "dense"])
            expected = [("SDPA", "small", "dense", "no GPU"), ("all of them", "small", "nabla-0.5", why)]
            self.assertEqual(listed, expected)

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


class CheckOfACampaign(unittest.TestCase):
    POLICY = "nabla-0.5"

    def rows(self):
        row = {"kind": "peer", "policy": self.POLICY, "ours_us": [1.0], "theirs_us": [2.0]}
        return [
            row | {"peer": "FlexAttention", "note": "outputs agree to 3e-07"},
            row | {"peer": check_campaign.MASK, "note": "0 of 39 blocks differ"},
            row | {"peer": "SDPA flash", "note": "its outputs are compared in the dense row"},
            {"kind": "missing", "policy": self.POLICY, "peer": "SDPA cuDNN", "reason": "NotThere: cuDNN is for GPUs"},
            {"kind": "finished", "policy": self.POLICY, "whole": True},
        ]

    def faults(self, rows, backend="cpu"):
        return list(check_campaign.faults_of_field(rows, backend, "small", [self.POLICY]))

    def test_what_agrees_has_no_fault(self):
        self.assertEqual(self.faults(self.rows()), [])

    def test_what_is_missing_or_differs_is_named(self):
        for number in range(3):
            rows = self.rows()
            gone = rows.pop(number)
            self.assertIn(f"{gone['peer']}: expected one row, got 0", self.faults(rows)[0])
            rows.append(gone | {"kind": "missing", "reason": "ValueError: masks differ in 24 of 39 blocks"})
            self.assertIn(f"{gone['peer']}: expected", self.faults(rows)[0])
        rows = self.rows()
        rows[3]["reason"] = fieldlog.UNREACHED
        self.assertIn("SDPA cuDNN is missing", self.faults(rows)[0])
        rows = self.rows()
        rows[4]["whole"] = False
        self.assertIn("not measured as a whole", self.faults(rows)[0])
        rows = self.rows()
        rows[0]["theirs_us"] = [0.0]
        self.assertIn("not all positive", self.faults(rows)[0])
        self.assertIn("not measured as a whole", self.faults([])[0])

    def test_without_times_results_still_have_to_agree(self):
        rows = [
            row if row["kind"] != "peer" else {
                "kind": "missing", "policy": self.POLICY, "peer": row["peer"], "reason": f"results compared ({row['note']})"
            }
            for row in self.rows()
        ]  # fmt: skip
        self.assertEqual(self.faults(rows, "emulator"), [])
        rows[0]["reason"] = "ValueError: outputs differ by 3.0e-01 relative"
        self.assertIn("outputs differ", self.faults(rows, "emulator")[0])

    def test_units_are_done_or_skipped_for_a_reason_of_the_backend(self):
        fine = {"status": "skipped", "reason": "compute-sanitizer watches GPUs"}
        for unit, is_fine in (
            ({"status": "done"}, True),
            (fine, True),
            ({"status": "skipped", "reason": "torch cannot be imported"}, False),
            ({"status": "bounded", "reason": "1 of 3 policies"}, False),
            ({"status": "failed", "reason": "exit code 4"}, False),
        ):
            faults = list(check_campaign.faults_of_units({"u": unit}, "cpu"))
            self.assertEqual(faults == [], is_fine, unit)


if __name__ == "__main__":
    unittest.main()
