"""Deliberate one-line defects: each must be caught by the test that names what it protects.

    python tests/mutate.py            (or make mutate)
    python tests/mutate.py --sound    first, whether the tests named here pass without any defect: when one is added

Each defect is made in a copy of the package, which then takes the installed one's place for one run of that test.
Exit status 1 if a defect survives.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PASSED, FAILED = 0, 1  # pytest's exit statuses
LIBRARIES = ["scipy.stats", "sklearn.datasets", "torch.fx.experimental.proxy_tensor", "xarray"]
"""Imported once, and not by each of the processes; what tests do with the package is left to them."""


@dataclass(frozen=True)
class Defect:
    """`right` becomes `wrong` in `file`; `test` must fail then."""

    what: str
    file: str
    right: str
    wrong: str
    test: str


ASSUMPTIONS = "tests/models/test_assumptions.py::test_preset_equals_the_rule_written_out"
WRITTEN_OUT = "tests/models/integrators/test_schemes.py::test_equals_the_scheme_written_out"
ACROSS = "tests/models/learning/test_across.py::test_shares_add_up_to_the_batch"
IN_BRIAN2 = "tests/models/engines/brian2/test_engine.py::test_our_schemes_are_the_same_in_brian2_and_in_pytorch"
CARRYING = "tests/models/closed_form/test_plan.py"
STREAMING = "tests/models/closed_form/test_evaluate.py"
SETTLING = "tests/models/closed_form/test_steps_needed.py"
SUITES = "tests/simulations/suites"
AUTOGRAD = "tests/models/network/test_projection.py::test_feedback_and_plasticity_are_autograds"

DEFECTS = [
    Defect(
        "gain dropped in the relaxation",
        "models/problem/problem.py",
        "return self.frozen_amplified(name, gain, x)",
        "return x",
        f"{WRITTEN_OUT}[tanh-one-euler]",
    ),
    Defect(
        "current gain taken at the feedforward drive",
        "models/problem/problem.py",
        "drive = self.network.drive(name, self._products_take(state), self.feedforward.routes)",
        "drive = self.feedforward.drives[name]",
        f"{ASSUMPTIONS}[unfrozen-relaxation-euler]",
    ),
    Defect(
        "activity gain read where the weight gain is meant",
        "models/problem/problem.py",
        "self.assumptions).weight_gain\n",
        "self.assumptions).activity_gain\n",
        f"{ASSUMPTIONS}[unfrozen-weights-euler]",
    ),
    Defect(
        "presynaptic factor always the feedforward activity",
        "models/problem/problem.py",
        'activities = self.feedforward.activities if when == "feedforward" else self._products_take(state)',
        "activities = self.feedforward.activities",
        f"{ASSUMPTIONS}[current-presynaptic-euler]",
    ),
    Defect(
        "feedback by W where psi is meant",
        "models/network/network.py",
        "return weight.sign() * psi if kind",
        "return weight if kind",
        f"{ASSUMPTIONS}[sign-feedback-euler]",
    ),
    Defect(
        "psi not updated",
        "models/learning/plasticity.py",
        'gradient["feedback"] = gradient["weight"].clone()',
        "pass",
        "tests/models/learning/test_feedback.py::test_feedback_that_starts_at_the_weights_follows_ar[SGD]",
    ),
    Defect(
        "decay on W only",
        "models/learning/plasticity.py",
        'name != "bias" and network.decays',
        'name == "weight" and network.decays',
        "tests/models/learning/test_feedback.py::test_kolen_pollack_shrinks_its_offset_at_the_rate_of_the_decay",
    ),
    Defect(
        "old for new values in the sequential sweep",
        "models/integrators/schemes.py",
        'Integrator("sequential", sequential,',
        'Integrator("sequential", euler,',
        f"{WRITTEN_OUT}[tanh-one-sequential]",
    ),
    Defect(
        "one step too few",
        "models/engines/torch.py",
        "range(1, grid.steps + 1)",
        "range(1, grid.steps)",
        f"{WRITTEN_OUT}[tanh-one-euler]",
    ),
    Defect(
        "tau ignored",
        "models/problem/per_neuron.py",
        "return self.given.get(population, self.default)",
        "return self.default",
        f"{WRITTEN_OUT}[tanh-neuron-rk4]",
    ),
    Defect(
        "a stage of rk4 at the wrong time",
        "models/integrators/schemes.py",
        "k3 = problem.vector_field(_moved(state, k2, dt / 2))",
        "k3 = problem.vector_field(_moved(state, k2, dt))",
        "tests/models/integrators/test_schemes.py::test_order_of_convergence",
    ),
    Defect(
        "transpose forgotten in the update",
        "models/network/layers.py",
        "return torch.addmm(weight, y.T, x, beta=0, alpha=scale)",
        "return scale * (x.T @ y).reshape(weight.shape)",
        "tests/models/closed_form/test_equilibrium.py::test_random_graphs",
    ),
    Defect(
        "bias gradient skipped",
        "models/network/projection.py",
        'update["bias"] = self.map.summed(postsynaptic, scale)',
        'update["bias"] = 0 * self.map.summed(postsynaptic, scale)',
        AUTOGRAD,
    ),
    Defect(
        "max pooling routed to other units than the winners",
        "models/network/pooling.py",
        "return y, Route(x.shape, winners, memory_format(x))",
        "return y, Route(x.shape, winners.flip(-1), memory_format(x))",
        AUTOGRAD,
    ),
    Defect(
        "winners of the moment in place of the feedforward pass's",
        "models/network/pooling.py",
        "chosen = x.flatten(2).gather(2, route.winners.flatten(2)).view(route.winners.shape)",
        "chosen = self.find(x)[0]",
        "tests/models/network/test_projection.py::test_max_pooling_keeps_the_winners_of_the_feedforward_pass",
    ),
    Defect(
        "feedback in another layout than the activities that it meets",
        "models/network/pooling.py",
        "return y.reshape(route.shape).contiguous(memory_format=route.memory_format)",
        "return y.reshape(route.shape)",
        "tests/simulations/training/test_assemble.py::test_channels_last_is_a_layout_and_changes_nothing_else"
        "[equilibrium-digits-cnn-fp64-cpu]",
    ),
    Defect(
        "states as coarse as the weights",
        "models/problem/problem.py",
        "return self.clamped.to(torch.promote_types(self.clamped.dtype, torch.float32))",
        "return self.clamped",
        "tests/models/integrators/test_schemes.py::test_in_bfloat16_a_relaxation_arrives[sequential]",
    ),
    Defect(
        "bfloat16's copy of the weights of the first batch",
        "simulations/training/mixed.py",
        "torch._foreach_copy_(_weights(copied), _weights(network))",
        "pass",
        "tests/simulations/training/test_mixed.py::test_the_weights_of_the_moment_count[random]",
    ),
    Defect(
        "feedback of the first projection only, where a population has several",
        "models/problem/problem.py",
        "total = total + signal",
        "total = total + 0 * signal",
        f"{ASSUMPTIONS}[ar-euler]",
    ),
    Defect(
        "sum for mean",
        "models/learning/plasticity.py",
        'return total / batch if self.reduction == "mean" else total',
        "return total",
        "tests/models/learning/test_relax.py::test_reduction",
    ),
    Defect(
        "clamp divided by the batch",
        "models/learning/relax.py",
        "RelaxationProblem(network, passed, clamped, assumptions, **fields)",
        "RelaxationProblem(network, passed, clamped / len(y), assumptions, **fields)",
        "tests/models/learning/test_relax.py::test_the_clamp_is_not_divided_by_the_batch",
    ),
    Defect(
        "papers' factor 2 forgotten",
        "models/problem/losses.py",
        "sum(1), 2 * difference",
        "sum(1), difference",
        "tests/models/problem/test_losses.py::test_gradient_is_autograds",
    ),
    Defect(
        "clip on one side only",
        "models/problem/unit_dynamics.py",
        "(u - x).clip(-self.clip, self.clip)",
        "(u - x).clip(max=self.clip)",
        "tests/models/problem/test_problem.py::test_clip_bounds_the_bracket",
    ),
    Defect(
        "absolute in place of relative change",
        "models/engines/request.py",
        "<= bound * scale)",
        "<= bound)",
        "tests/models/engines/test_solve.py::test_stops_when_every_population_has_settled",
    ),
    Defect(
        "the law's tails in the wrong order on graphs",
        "models/closed_form/law.py",
        "Term(hops - 1 - k, hops,",
        "Term(k, hops,",
        "tests/models/closed_form/test_law.py::test_graphs",
    ),
    Defect(
        "euler's transition for the sequential sweep",
        "models/integrators/schemes.py",
        'Integrator("sequential", sequential, _swept,',
        'Integrator("sequential", sequential, _polynomial(),',
        "tests/models/closed_form/test_law.py::test_chains",
    ),
    Defect(
        "every epoch in the first one's order",
        "simulations/training/batches.py",
        'stream = random_stream(self.seed, "epoch", number)',
        'stream = random_stream(self.seed, "epoch", 1)',
        "tests/simulations/training/test_batches.py::test_seed_and_epoch_fix_the_order_and_nothing_else_does",
    ),
    Defect(
        "images flipped that should not be, and the other way round",
        "simulations/training/batches.py",
        "torch.where(flips[:, None], columns.flip(1), columns)",
        "torch.where(flips[:, None], columns, columns.flip(1))",
        "tests/simulations/training/test_batches.py::test_flip_and_crop_written_out",
    ),
    Defect(
        "an epoch's count begun anew when resumed",
        "simulations/training/loop.py",
        'self.totals = {name: total.to(self.totals[name], copy=True) for name, total in state["totals"].items()}',
        "self.reset_totals()",
        "tests/simulations/training/test_loop.py::test_a_training_continued_equals_one_that_was_never_stopped[ar]",
    ),
    Defect(
        "a file written in place",
        "models/results/files.py",
        'partial = path.with_name(f"{path.name}.partial")',
        "partial = path",
        "tests/analysis/test_files.py::test_a_disk_that_is_full_leaves_the_old_file",
    ),
    Defect(
        "another set taken for an official one",
        "simulations/datasets.py",
        "        _check_official(dataset, path)\n",
        "",
        "tests/simulations/test_datasets.py::test_another_set_is_never_taken_for_an_official_one",
    ),
    Defect(
        "pickles read from an archive with another hash",
        "simulations/archives.py",
        "pooch.retrieve(mirror + file, archive.files[file], file, folder, downloader=fetch)",
        "pooch.retrieve(mirror + file, None, file, folder, downloader=fetch)",
        "tests/simulations/test_archives.py::test_a_wrong_hash_is_refused_before_anything_is_unpickled",
    ),
    Defect(
        "the convolutions' factor given to the dense layers",
        "simulations/training/assemble.py",
        'factors = {"conv": o.conv_factor}',
        'factors = {"dense": o.conv_factor}',
        "tests/simulations/training/test_assemble.py::test_the_rule_gets_the_protocols_options",
    ),
    Defect(
        "a checkpoint saved unseen",
        "simulations/training/recorder.py",
        "        if self.every and training.done % self.every == 0:\n            self.check.look(training)\n",
        "        if self.every and training.done % self.every == 0:\n",
        "tests/simulations/test_train.py::test_nothing_is_saved_that_is_not_sound",
    ),
    Defect(
        "continuous plasticity at the full rate each step",
        "models/learning/continuous.py",
        "state, updates, rate / grid.steps)",
        "state, updates, rate)",
        "tests/models/learning/test_continuous.py::test_equals_the_loop_written_out",
    ),
    Defect(
        "units decay in a straight line where the input is held",
        "models/problem/unit_dynamics.py",
        "_decayed(dt / self.tau))",
        "dt / self.tau)",
        "tests/models/problem/test_unit_dynamics.py::test_a_leaky_unit_written_out[0.7-None-torch]",
    ),
    Defect(
        "adaptation without the input's scale",
        "models/problem/unit_dynamics.py",
        "((1 + strength) / tau, 0)",
        "(1 / tau, 0)",
        "tests/models/problem/test_unit_dynamics.py::test_named_dynamics_are_their_equations[adapting]",
    ),
    Defect(
        "units with dynamics started at another activity",
        "models/problem/problem.py",
        "unit.resting(x if unit.gain == 1 else x / unit.gain)",
        "unit.resting(x)",
        "tests/models/problem/test_unit_dynamics.py::"
        "test_starts_at_rest_with_the_activity_of_the_start[feedforward-third order]",
    ),
    Defect(
        "a step too large for units with dynamics",
        "models/engines/steps.py",
        "dt)[0, 0]) >= 1:",
        "dt)[0, 0]) >= 2:",
        "tests/models/problem/test_unit_dynamics.py::test_steps_that_are_refused",
    ),
    Defect(
        "feedback that arrives at once",
        "models/problem/problem.py",
        "if line is None else line[-1]",
        "if line is None else line[0]",
        "tests/models/engines/test_delays.py::test_equals_the_recursion_written_out[3-ar]",
    ),
    Defect(
        "silence before the start",
        "models/problem/problem.py",
        "state[_line(name)] = sent.expand(",
        "state[_line(name)] = (0 * sent).expand(",
        "tests/models/engines/test_delays.py::test_before_the_start_everything_had_its_initial_value",
    ),
    Defect(
        "settled while news is on its way",
        "models/engines/request.py",
        "groups += [(v,) for v in state if not any(v in group for group in groups)]",
        "groups += []",
        "tests/models/engines/test_delays.py::test_a_line_that_still_carries_news_is_not_settled",
    ),
    Defect(
        "noise of half the variance",
        "models/problem/problem.py",
        "(2 * dt / self.taus.on(name, x))",
        "(dt / self.taus.on(name, x))",
        "tests/models/engines/test_noise.py::test_moments_obey_their_linear_recursion",
    ),
    Defect(
        "a noisy input that nobody sees",
        "models/problem/problem.py",
        "if unit.variables[0] in state}",
        "if unit.variables[0] in state and name != self.network.input}",
        "tests/models/engines/test_noise.py::test_a_noisy_input_matters_where_current_drives_are_read",
    ),
    Defect(
        "other noise when a run is repeated",
        "models/engines/torch.py",
        "rewind.back()",
        "pass",
        "tests/models/engines/test_noise.py::test_a_diverging_run_is_repeated_with_the_same_noise[a generator]",
    ),
    Defect(
        "missing connections made up for",
        "models/problem/feedback_transforms.py",
        "return weight * kept.to(weight.device)",
        "return weight * kept.to(weight.device) / self.probability",
        "tests/models/problem/test_feedback_transforms.py::test_sparse_removes_connections_and_leaves_the_others_as_they_are",
    ),
    Defect(
        "one level too many",
        "models/problem/feedback_transforms.py",
        "2 * largest / (self.levels - 1)",
        "2 * largest / self.levels",
        "tests/models/problem/test_feedback_transforms.py::test_quantised_takes_the_nearest_of_evenly_spaced_levels[4]",
    ),
    Defect(
        "moving weights transformed once",
        "models/problem/problem.py",
        "if found is None or found[0] != versions:",
        "if found is None:",
        "tests/models/problem/test_feedback_transforms.py::test_continuous_plasticity_transforms_the_weights_of_the_moment[transpose]",
    ),
    Defect(
        "all winners in the first plane",
        "models/network/pooling.py",
        "winners + pixels * np.arange(planes)[:, None]",
        "winners + 0 * pixels * np.arange(planes)[:, None]",
        "tests/models/engines/test_sparse_problem.py::test_samples_take_their_own_routes",
    ),
    Defect(
        "all groups read the first one's channels",
        "models/network/layers.py",
        "sources = patches.reshape(self.groups, 1, -1, pixels)",
        "sources = patches.reshape(self.groups, 1, -1, pixels)[:1]",
        "tests/models/engines/test_sparse_problem.py::test_each_kind_of_projection[Conv2d-shape4]",
    ),
    Defect(
        "time constants of neurons given to samples",
        "models/engines/sparse_problem.py",
        "np.tile(vector(value), self.batch)",
        "np.repeat(vector(value), self.batch)",
        "tests/models/engines/test_sparse_problem.py::test_the_vector_field_is_the_problems[tau-ar]",
    ),
    Defect(
        "curvature of gains forgotten in the Jacobian",
        "models/engines/sparse_problem.py",
        "curved = self._curvature(",
        "curved = 0 * self._curvature(",
        "tests/models/engines/test_sparse_problem.py::test_the_jacobian_is_autograds[tanh-current]",
    ),
    Defect(
        "SciPy's failures not read",
        "models/engines/adaptive.py",
        'if solver.status == "failed":',
        "if False:",
        "tests/models/engines/test_scipy.py::test_a_method_that_gives_up_says_why[scipy:RK45]",
    ),
    Defect(
        "tolerances not passed on",
        "models/engines/adaptive.py",
        '"rtol": self.limits.rtol',
        '"rtol": 1e-6',
        "tests/models/engines/test_scipy.py::test_methods_follow_the_exact_law[scipy:RK45]",
    ),
    Defect(
        "an equilibrium at the start not seen",
        "models/engines/adaptive.py",
        "self.settled = self._is_at_rest(self.y)",
        "self.settled = False",
        "tests/models/engines/test_scipy.py::test_a_start_at_equilibrium_is_seen[scipy:RK45]",
    ),
    Defect(
        "an end on a point of the grid counted beyond it",
        "models/engines/adaptive.py",
        "np.ceil(self.t / request.grid.dt - 1e-9)",
        "np.ceil(self.t / request.grid.dt)",
        "tests/models/engines/test_scipy.py::test_settling_on_a_point_of_the_grid_ends_there",
    ),
    Defect(
        "what users' functions raise taken for SciPy's",
        "models/engines/adaptive.py",
        "            if self.field.inside:\n                raise\n",
        "",
        "tests/models/engines/test_scipy.py::test_what_a_users_own_function_raises_passes_through[scipy:RK45]",
    ),
    Defect(
        "activities sent in another precision than that of the weights",
        "models/problem/problem.py",
        "self.units[name].activity(state).to(self.clamped)",
        "self.units[name].activity(state)",
        "tests/models/integrators/test_schemes.py::test_in_bfloat16_a_relaxation_arrives[sequential]",
    ),
    Defect(
        "the held input's law by the method's name",
        "models/engines/methods.py",
        "holding(lambda ratio: 1 - stability(-ratio))",
        "holding(lambda ratio: ratio)",
        "tests/models/engines/test_methods.py::test_brian2s_updaters_follow_the_binomial_law[0.2-rk4]",
    ),
    Defect(
        "a file that lives in buffers",
        "models/results/xarray_io.py",
        "            self._disk.flush()\n",
        "",
        "tests/models/results/test_xarray_io.py::test_what_a_killed_program_wrote_can_be_opened",
    ),
    Defect(
        "the bad state kept in the file",
        "models/results/recording.py",
        "self._file.drop_last()",
        "pass",
        "tests/models/results/test_xarray_io.py::test_a_relaxation_that_diverges_leaves_the_good_part[1-euler]",
    ),
    Defect(
        "sums within a step in the order of their names",
        "models/engines/brian2/build.py",
        "        updater.order = order\n",
        "        pass\n",
        "tests/models/engines/brian2/test_engine.py::test_orders_are_set_not_left_to_names",
    ),
    Defect(
        "a delay line shifted from its beginning",
        "models/engines/brian2/delay_line.py",
        "for k in range(steps, 0, -1)]",
        "for k in range(1, steps + 1)]",
        "tests/models/engines/brian2/test_delay_line.py",
    ),
    Defect(
        "delay lines silent before t = 0",
        "models/engines/brian2/build.py",
        'setattr(group, f"{line}_{k}", before)',
        'getattr(group, f"{line}_{k}", before)',
        f"{IN_BRIAN2}[delay-euler]",
    ),
    Defect(
        "delay lines shifted before the drives are known",
        "models/engines/brian2/build.py",
        'when="groups", order=relaxing.LINE',
        'when="start"',
        f"{IN_BRIAN2}[delays, unfrozen-euler]",
    ),
    Defect(
        "the gain left out in Brian2",
        "models/engines/brian2/equations.py",
        '"feedforward": "gain * x"',
        '"feedforward": "x"',
        f"{IN_BRIAN2}[graph-euler]",
    ),
    Defect(
        "psi not learned in Brian2",
        "models/learning/brian2/equations.py",
        '(("w", p.weight), ("psi", p.feedback if own else None))',
        '(("w", p.weight),)',
        "tests/models/learning/brian2/test_learner.py::test_two_hundred_digits_are_learned_as_in_torch[learned-feedback]",
    ),
    Defect(
        "rates held a step early",
        "models/learning/brian2/equations.py",
        '"hold": "step == held - 1"',
        '"hold": "step == held - 2"',
        "tests/models/learning/brian2/test_learner.py::test_two_hundred_digits_are_learned_as_in_torch[ar]",
    ),
    Defect(
        "a process's share averaged by its own size",
        "models/learning/plasticity.py",
        "return [updates.reduced(each, count) for each in sums]",
        "return [updates.reduced(each, samples or 1) for each in sums]",
        f"{ACROSS}[ar-mean]",
    ),
    Defect(
        "shares clipped before they are summed",
        "models/learning/plasticity.py",
        "updates.across([*scaled, here])",
        "updates.across([*(updates.clipped_(each) for each in scaled), here])",
        f"{ACROSS}[backprop-sum]",
    ),
    Defect(
        "images that are left over belong to no process",
        "simulations/training/processes.py",
        "(self.rank + 1) * size // self.count)",
        "self.rank * size // self.count + size // self.count)",
        "tests/simulations/training/test_processes.py::test_batches_are_drawn_whole_and_then_shared[False]",
    ),
    Defect(
        "every process draws the same noise",
        "simulations/training/assemble.py",
        'random_stream(experiment.seed, "process", processes.rank)',
        'random_stream(experiment.seed, "process")',
        "tests/simulations/training/test_processes.py::test_each_process_draws_noise_of_its_own",
    ),
    Defect(
        "targets combined with the coefficients of another level",
        "models/closed_form/plan.py",
        "_weight(coefficients, level - j, j, row)",
        "_weight(coefficients, level, j, row)",
        f"{CARRYING}::test_on_chains_the_plan_gives_what_steps_give_for_any_time_constants",
    ),
    Defect(
        "what arrives along several paths added in the order of its arrival",
        "models/closed_form/plan.py",
        "tuple(arriving[source].index(row) for row in taken)",
        "tuple(range(len(taken)))",
        f"{CARRYING}::test_on_any_graph_the_plan_gives_what_steps_give",
    ),
    Defect(
        "silence carried down",
        "models/closed_form/plan.py",
        'else "silent" if silent else "initial", 0)',
        'else "initial", 0)',
        f"{CARRYING}::test_from_silence_one_vector_goes_as_far_as_it_gets",
    ),
    Defect(
        "sources carried all the way down",
        "models/closed_form/plan.py",
        "or len(targets) < len(wanted):",
        "or False:",
        f"{CARRYING}::test_as_many_as_the_theory_says",
    ),
    Defect(
        "a tolerance relative to what is largest anywhere",
        "models/closed_form/plan.py",
        "gains = np.where(gains > 0, gains, 1.0)",
        "gains = np.ones_like(gains)",
        f"{CARRYING}::test_a_tolerance_means_the_same_in_every_population",
    ),
    Defect(
        "no gain for stacks",
        "models/closed_form/evaluate.py",
        "problem.frozen_amplified(name, gain, made)",
        "problem.frozen_amplified(name, gain if station.is_copy else 'none', made)",
        f"{STREAMING}::test_chains",
    ),
    Defect(
        "added to in place, where a copy passes on what was sent",
        "models/closed_form/evaluate.py",
        "signal if there is None else there + signal",
        "signal if there is None else there.add_(signal)",
        f"{STREAMING}::test_a_copy_and_weights_to_one_population_and_weights_to_another",
    ),
    Defect(
        "each vector's samples take each other's routes",
        "models/network/pooling.py",
        "self.winners.repeat(times, 1, 1, 1)",
        "self.winners.repeat_interleave(times, 0)",
        f"{STREAMING}::test_every_activation_in_both_precisions",
    ),
    Defect(
        "a fused gain that reads the drive for the activity",
        "models/network/activations.py",
        'Fused(_Kernel("tanh_backward"), "activity")',
        'Fused(_Kernel("tanh_backward"), "drive")',
        "tests/models/network/test_activations.py::test_amplified_is_the_product_with_the_derivative",
    ),
    Defect(
        "plasticity by what is sent, not by the activity",
        "models/closed_form/evaluate.py",
        "{gain: product[0] for gain, product in amplified.items()}",
        "{gain: product[-1] for gain, product in amplified.items()}",
        "tests/models/learning/test_relax.py::test_streamed_updates_are_those_of_the_steps[euler-ar-chain]",
    ),
    Defect(
        "populations kept until the end",
        "models/learning/relax.py",
        "for name, held in here.items() if name in needed}",
        "for name, held in here.items()}",
        "tests/models/learning/test_relax.py::test_populations_are_freed_as_they_are_used",
    ),
    Defect(
        "the shortest path to the output counted",
        "models/network/graph.py",
        "found[source] = max(found[source], 1 + found[name])",
        "found[source] = 1 + found[name] if not found[source] else min(found[source], 1 + found[name])",
        f"{SETTLING}::test_on_graphs_the_longest_path_counts",
    ),
    Defect(
        "settled to the gradient by a population's own activity alone",
        "models/closed_form/steps_needed.py",
        "[max(pair) for pair in longest]",
        "[found[source][0] for pair in longest]",
        f"{SETTLING}::test_relative_to_gradients_whatever_feedback_does",
    ),
    Defect(
        "settled a step early",
        "models/closed_form/steps_needed.py",
        "            return n\n",
        "            return n - 1\n",
        f"{SETTLING}::test_as_many_steps_as_the_theory_says",
    ),
    Defect(
        "settled by a change that forgets the step's size",
        "models/engines/steps.py",
        "stop_change=tolerance * dt / _slowest(problem)",
        "stop_change=tolerance",
        f"{SETTLING}::test_without_a_law_it_steps_until_nothing_changes",
    ),
    Defect(
        "an error that is small once taken for one that stays small",
        "analysis/convergence.py",
        "int(above[-1]) + 1 if len(above) else 0",
        "int(np.argmax(values < tolerance))",
        "tests/analysis/test_convergence.py::test_stays_below",
    ),
    Defect(
        "equivalence by one of the two one-sided tests",
        "analysis/statistics.py",
        "float(max(below, above))",
        "float(below)",
        "tests/analysis/test_statistics.py::test_equivalence_by_two_one_sided_tests",
    ),
    Defect(
        "seeds paired by their order",
        "analysis/reports/conditions.py",
        "([accuracies[n][seed] for seed in common] for n in (name, reference))",
        "(list(accuracies[n].values())[: len(common)] for n in (name, reference))",
        f"{SUITES}/test_report.py::test_seeds_are_paired_whatever_their_order",
    ),
    Defect(
        "p values as if a table had one of them",
        "analysis/reports/conditions.py",
        "zip(others, holm(p), strict=True)",
        "zip(others, p, strict=True)",
        f"{SUITES}/test_report.py::test_differences_are_paired_by_seed_and_corrected_for_their_number",
    ),
    Defect(
        "runs of different length taken for one",
        "simulations/suites/store.py",
        '{"data_dir": None}',
        '{"data_dir": None, "epochs": 0}',
        f"{SUITES}/test_perform.py::test_options_tell_runs_apart_but_for_the_place_of_their_data",
    ),
    Defect(
        "Kolen-Pollack's decay the same however long training is",
        "simulations/suites/definitions.py",
        "2 / (experiment.optimisation.lr * steps)",
        "2 / (experiment.optimisation.lr * images)",
        f"{SUITES}/test_definitions.py::test_kolen_pollack_forgets_in_any_number_of_epochs",
    ),
    Defect(
        "a suite taken for the value of --option=value before it",
        "simulations/suites/commands.py",
        ' and "=" not in b',
        "",
        "tests/simulations/test_reproduce.py::test_the_suite_is_no_options_value",
    ),
    Defect(
        "a run that fails and takes the table of the others with it",
        "simulations/suites/execution.py",
        "refused = error",
        "raise error",
        "tests/simulations/test_reproduce.py::test_a_run_that_fails_does_not_cost_the_table_of_the_others",
    ),
    Defect(
        "one computation tested against itself",
        "analysis/statistics.py",
        "return Paired(len(d), mean, mean, mean, 0.0, math.nan, math.nan)",
        "return Paired(len(d), mean, mean, mean, 0.0, 1.0, 0.0)",
        f"{SUITES}/test_report.py::test_one_computation_is_not_tested_against_itself",
    ),
    Defect(
        "rates chosen by the test images",
        "simulations/suites/rates.py",
        'o.curves["validation_accuracy"][-1]',
        'o.curves["test_accuracy"][-1]',
        f"{SUITES}/test_rates.py::test_the_best_rate_is_that_of_the_highest_mean_where_no_seed_diverged",
    ),
    Defect(
        "a rate at which a seed diverged taken for the best",
        "simulations/suites/rates.py",
        "if a and not self.diverged[rate]",
        "if a",
        f"{SUITES}/test_rates.py::test_the_best_rate_is_that_of_the_highest_mean_where_no_seed_diverged",
    ),
    Defect(
        "a map whose equivalent conditions are those that differ",
        "analysis/reports/conditions.py",
        "self.p_equivalence[reference] < level",
        "self.p_difference[reference] < level",
        f"{SUITES}/test_overview.py::test_differences_verdicts_and_what_diverged",
    ),
    Defect(
        "a step taken for the whole bracket",
        "models/closed_form/clip_bound.py",
        "(moved[name] - start[name]) / share",
        "moved[name] - start[name]",
        "tests/models/closed_form/test_clip_bound.py",
    ),
    Defect(
        "a clip left out where it has an effect",
        "simulations/training/clipping.py",
        "may = not found <= self.clip",
        "may = False",
        "tests/simulations/training/test_rules.py::test_batches_that_may_reach_the_clip_are_stepped",
    ),
    Defect(
        "more taken for settled than is",
        "analysis/convergence.py",
        "law(n)[row, :-1].sum() < share",
        "law(n)[row, :-1].sum() < 100 * share",
        "tests/analysis/test_convergence.py::test_predicted_steps_are_the_measured_ones",
    ),
    Defect(
        "a report that lets markup through",
        "analysis/reports/page.py",
        "autoescape=True",
        "autoescape=False",
        "tests/analysis/reports/test_page.py::test_everything_is_escaped",
    ),
    Defect(
        "one seed twice taken for two samples",
        "analysis/reports/gathered.py",
        "if count > 1",
        "if count > 2",
        "tests/analysis/reports/test_gathered.py::test_one_seed_twice_is_no_second_sample",
    ),
    Defect(
        "a public name without a page in the reference",
        "__init__.py",
        '    "Activation": "models.activations",\n',
        "",
        "tests/test_docs.py::test_the_reference_has_every_public_name",
    ),
    Defect(
        "a preset that no page explains",
        "models/assumptions.py",
        '"sign-feedback": _everywhere',
        '"signed-feedback": _everywhere',
        "tests/test_docs.py::test_every_assumption_is_explained",
    ),
    Defect(
        "the inverse in place of its adjoint",
        "analysis/spectra.py",
        'factors.solve(v, trans="H")',
        "factors.solve(v)",
        "tests/analysis/test_spectra.py::test_the_smallest_singular_value_is_that_of_a_dense_svd",
    ),
    Defect(
        "what moves by itself taken for what its steps do",
        "analysis/endings.py",
        "coarse.swing / 2",
        "coarse.swing * 2",
        "tests/analysis/test_fixed_points.py::test_what_spirals_outward_moves_on",
    ),
    Defect(
        "a kick's magnitude added up over the steps, not its variance",
        "analysis/noise.py",
        "total += C**2",
        "total += C",
        "tests/analysis/test_noise.py::test_variances_are_those_of_the_recursion",
    ),
    Defect(
        "neurons of a population drawn apart where they share a time constant",
        "simulations/options.py",
        'together = self.tau_spread_over == "populations"',
        "together = False",
        "tests/simulations/test_options.py::test_time_constants_of_whole_populations",
    ),
    Defect(
        "an option that is added makes strangers of runs that are done",
        "simulations/suites/store.py",
        'ADDED = ("tau_spread_over",)',
        "ADDED: tuple[str, ...] = ()",
        f"{SUITES}/test_definitions.py::test_results_that_are_kept_are_of_the_suites_runs",
    ),
]


def complaint(defect: Defect) -> str:
    """Return what is wrong, or nothing if the test fails with the defect."""
    with tempfile.TemporaryDirectory() as folder:
        file = copied(folder) / defect.file
        text = file.read_text()
        if text.count(defect.right) != 1:
            return f"stands {text.count(defect.right)} times in {defect.file}: {defect.right}"
        file.write_text(text.replace(defect.right, defect.wrong))
        status = _pytest_in_this_process(folder, defect.test)
        return "" if status == FAILED else f"survived {defect.test} (pytest's exit status {status})"


def copied(folder: str) -> Path:
    """Copy the package into a folder, in which it can be damaged."""
    package = Path(folder) / "actrelax"
    shutil.copytree(ROOT / "src" / "actrelax", package)
    for name in ("models", "simulations", "analysis"):
        shutil.copytree(ROOT / name, package / name)
    return package


def _pytest_in_this_process(folder: str, *options: str) -> int:
    """Run tests with the package in `folder` in the installed one's place; returns pytest's exit status."""
    import pytest

    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = folder  # for programs that tests start
    with open(os.devnull, "w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *options]))


def sound() -> bool:
    """Whether the tests that are named pass without any defect."""
    with tempfile.TemporaryDirectory() as folder:
        copied(folder)
        return _pytest_in_this_process(folder, "-n", "2", *dict.fromkeys(d.test for d in DEFECTS)) == PASSED


def main() -> int:
    """Try all defects, two at a time; returns the exit status."""
    os.chdir(ROOT)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    with ProcessPoolExecutor(2, context, max_tasks_per_child=1) as pool:
        if "--sound" in sys.argv[1:] and not pool.submit(sound).result():
            print("the tests named here don't pass without any defect: see make test")
            return 1
        outcomes = list(pool.map(complaint, DEFECTS))
    for defect, outcome in zip(DEFECTS, outcomes, strict=True):
        print(f"NOT CAUGHT  {defect.what}: {outcome}" if outcome else f"caught  {defect.what}")
    caught = outcomes.count("")
    print(f"{caught} of {len(DEFECTS)} defects caught")
    return 0 if caught == len(DEFECTS) else 1


if __name__ == "__main__":
    raise SystemExit(main())
