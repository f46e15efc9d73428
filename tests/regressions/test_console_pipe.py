"""A job whose printed rows nobody reads any more fails with that reason."""

import io

import pytest

import unistream as us


class Closed(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("style", ["table", "lines"])
def test_a_pipe_without_a_reader_is_told(style):
    from unistream.io.console import ConsoleSink

    job = us.from_frame({"a": [1]}).sink(ConsoleSink(to=Closed(), style=style))
    with pytest.raises(us.JobFailed, match="Nobody reads"):
        job.run(progress=False)
