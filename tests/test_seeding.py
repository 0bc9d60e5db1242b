import subprocess
import sys

import torch

from rethinking.seeding import generator


def draws(*key) -> list[int]:
    return torch.randint(2**31, (4,), generator=generator(*key)).tolist()


def test_the_same_purpose_gives_the_same_stream():
    assert draws(0, "order", 3) == draws(0, "order", 3)


def test_seed_purpose_and_epoch_each_give_another_stream():
    streams = [draws(0, "order", 1), draws(1, "order", 1), draws(0, "init", 1), draws(0, "order", 2), draws(0, "order")]
    assert len({tuple(stream) for stream in streams}) == len(streams)


def test_streams_do_not_depend_on_the_process_or_the_global_seed():
    torch.manual_seed(123)
    code = (
        "import torch; from rethinking.seeding import generator;"
        "print(torch.randint(2**31, (4,), generator=generator(7, 'labels', 'which')).tolist())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(draws(7, "labels", "which"))


def test_deriving_a_stream_does_not_change_the_global_stream():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    generator(0, "order", 1)
    assert torch.equal(torch.rand(3), expected)
