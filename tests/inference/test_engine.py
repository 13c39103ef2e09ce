"""The engine computes the graph in float32, the same for every batch and thread count, without telemetry."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from hemoscope.errors import BundleError
from hemoscope.inference import engine as engine_module
from hemoscope.inference.bundle import ModelBundle, ModelCard, write_bundle
from hemoscope.inference.engine import Engine, available_threads

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def engine(loaded_bundle: ModelBundle) -> Engine:
    return Engine(loaded_bundle, threads=2)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).random((7, *SHAPE), dtype=np.float32)


@pytest.fixture
def bundle_of(
    tmp_path: Path, make_card: Callable[..., ModelCard], make_graph: Callable[..., bytes]
) -> Callable[..., ModelBundle]:
    return lambda **graph: write_bundle(tmp_path / "bundle", make_card(), make_graph(**graph))


def expected(images: np.ndarray) -> np.ndarray:
    """The tiny model by hand in float64: see TINY_WEIGHTS in tests/tiny_model.py."""
    weights = np.array(
        [[6, 4, -8, -1], [1, 7, -3, -2], [5, 1, -6, -1.5], [2, 2, 2, -3], [-1, 6, 1, -2.5], [3, -2, 4, -0.5]]
    )
    return images.astype(np.float64).mean(axis=(2, 3)) @ weights[:, :3].T + weights[:, 3]


def test_six_logits_come_out_in_label_order(engine: Engine, images: np.ndarray) -> None:
    scores = engine.run(images)
    assert scores.logits.dtype == np.float32
    assert scores.logits == pytest.approx(expected(images), abs=1e-5)
    assert scores.maps is None


def test_maps_come_out_of_the_same_pass_when_requested(engine: Engine, images: np.ndarray) -> None:
    scores = engine.run(images, maps=True)
    assert scores.maps is not None
    assert scores.maps.shape == (7, 6, 4, 4)
    assert scores.maps.mean(axis=(2, 3)) == pytest.approx(scores.logits, abs=1e-5)


def test_a_slice_scores_the_same_whatever_batch_it_came_in(
    engine: Engine, loaded_bundle: ModelBundle, images: np.ndarray
) -> None:
    whole = engine.run(images).logits
    single = np.concatenate([engine.run(images[i : i + 1]).logits for i in range(len(images))])
    other_threads = Engine(loaded_bundle, threads=1).run(images[::-1]).logits[::-1]
    assert (whole == single).all()
    assert (whole == other_threads).all()


def test_inputs_are_taken_only_as_fast_as_they_are_scored(engine: Engine, images: np.ndarray) -> None:
    alive = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal alive
        for index in range(50):
            alive = index + 1
            yield images[index % 7]

    assert engine.run(source()).logits.shape == (50, 6)
    answers = engine._answers(source(), maps=False)
    next(answers)
    assert alive <= engine.threads + 1
    answers.close()
    assert engine.run(images).logits == pytest.approx(expected(images), abs=1e-5)


def test_no_slices_give_no_scores(engine: Engine) -> None:
    assert engine.run([]).logits.shape == (0, 6)


@pytest.mark.parametrize(
    "image", [np.zeros((3, 32, 31), np.float32), np.zeros((1, *SHAPE), np.float32), np.zeros(SHAPE, np.float64)]
)
def test_an_input_of_another_shape_or_type_is_refused_and_the_engine_continues(
    engine: Engine, images: np.ndarray, image: np.ndarray
) -> None:
    with pytest.raises(ValueError, match="expected a float32 input of shape"):
        engine.run([images[0], image])
    assert engine.run(images).logits == pytest.approx(expected(images), abs=1e-5)


def test_precision_and_threads_are_those_that_were_chosen(engine: Engine) -> None:
    get = engine._compiled.get_property
    assert get("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert str(get("EXECUTION_MODE_HINT")).endswith("ACCURACY")
    assert (get("INFERENCE_NUM_THREADS"), int(get("NUM_STREAMS"))) == (2, 2)


def test_threads_default_to_the_processors_available(loaded_bundle: ModelBundle) -> None:
    assert Engine(loaded_bundle).threads == available_threads()
    assert 1 <= available_threads() <= 8


@pytest.mark.parametrize(("workers", "threads"), [(0, 8), (1, 8), (4, 8), (8, 4), (32, 1), (100, 1)])
def test_workers_share_all_processors_not_the_most_of_one_engine(
    monkeypatch: pytest.MonkeyPatch, workers: int, threads: int
) -> None:
    monkeypatch.setattr(engine_module, "available_processors", lambda: 32)
    assert available_threads(workers) == threads


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's list of threads")
@pytest.mark.parametrize("threads", [1, 2])
def test_no_thread_is_bound_to_one_processor_which_other_workers_would_share(
    loaded_bundle: ModelBundle, images: np.ndarray, threads: int
) -> None:
    engine = Engine(loaded_bundle, threads=threads)
    allowed = frozenset(os.sched_getaffinity(0))
    seen: set[frozenset[int]] = set()
    done = threading.Event()

    def look() -> None:  # while they compute: OpenVINO takes the bond away afterwards
        while not done.is_set():
            for task in Path("/proc/self/task").iterdir():
                with suppress(ProcessLookupError):
                    seen.add(frozenset(os.sched_getaffinity(int(task.name))))

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(200):
        engine.run(images)
    done.set()
    looking.join()
    assert seen == {allowed}


def test_fewer_than_one_thread_is_refused(loaded_bundle: ModelBundle) -> None:
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        Engine(loaded_bundle, threads=0)


def test_a_graph_that_is_not_onnx_is_refused(tmp_path: Path, make_card: Callable[..., ModelCard]) -> None:
    with pytest.raises(BundleError, match=r"model.onnx: cannot be run: .*Export the model again"):
        write_bundle(tmp_path / "bundle", make_card(), b"not a graph")
    bundle = write_bundle(tmp_path / "bundle", make_card(), b"\x08\x08\x3a\x00")  # an empty graph
    with pytest.raises(BundleError, match=r"model.onnx: .*Export the model again"):
        Engine(bundle)


def test_a_graph_with_a_name_that_is_no_text_is_refused(
    tmp_path: Path, make_card: Callable[..., ModelCard], make_graph: Callable[..., bytes]
) -> None:
    """OpenVINO quotes the name in its message, which Python cannot decode."""
    graph = make_graph().replace(b"AveragePool", b"Average\xf3ool")
    bundle = write_bundle(tmp_path / "bundle", make_card(), graph)
    with pytest.raises(BundleError, match=r"model.onnx: cannot be run: .*Export the model again"):
        Engine(bundle)


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        ({"input_name": "picture"}, r"has inputs \['picture'\]"),
        ({"logits_name": "scores"}, "expected input image and outputs logits and maps"),
        ({"maps_name": "heat"}, "outputs .*heat"),
        ({"weights": np.ones((5, 4), np.float32)}, r"gives logits \[1, 5\]"),
        ({"weights": np.ones((6, 10), np.float32)}, "cannot be run"),
    ],
)
def test_a_graph_with_other_ports_is_refused(
    bundle_of: Callable[..., ModelBundle], graph: dict[str, object], words: str
) -> None:
    with pytest.raises(BundleError, match=words):
        Engine(bundle_of(**graph))


def test_a_graph_that_gives_no_number_is_refused(bundle_of: Callable[..., ModelBundle], images: np.ndarray) -> None:
    broken = bundle_of(weights=np.full((6, 4), np.nan, np.float32))
    with pytest.raises(BundleError, match="not a finite number"):
        Engine(broken).run(images)


# What a process may not do while it scores: look up a name, connect, bind, or start another process that could.
WATCHED_RUN = """
import sys
PROCESSES = {"subprocess.Popen", "os.fork", "os.exec", "os.system", "os.posix_spawn"}
seen = []
def watch(event, args):
    if event.startswith("socket.") or event in PROCESSES:
        seen.append(event)
sys.addaudithook(watch)
from pathlib import Path
import numpy as np
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.engine import Engine
Engine(load_bundle(Path(sys.argv[1])), threads=1).run(np.zeros((2, 3, 32, 32), np.float32))
loaded = [name for name in sys.modules if "telemetry" in name and sys.modules[name] is not None]
print(seen, loaded)
"""


def test_scoring_opens_no_socket_starts_no_process_and_leaves_no_telemetry(tiny_bundle: Path, tmp_path: Path) -> None:
    # OpenVINO's telemetry is silent in CI: without these words it would speak.
    quiet = {"CI", "TF_BUILD", "JENKINS_URL", "GITHUB_ACTIONS", "GITLAB_CI", "TEAMCITY_VERSION"}
    environment = {name: value for name, value in os.environ.items() if name not in quiet} | {"HOME": str(tmp_path)}
    command = [sys.executable, "-c", WATCHED_RUN, str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=60)
    assert done.stdout.strip() == "[] []"
    assert list(tmp_path.iterdir()) == []
