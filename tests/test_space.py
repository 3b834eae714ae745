import pytest

from s2v_cli.errors import SpaceError, UsageError
from s2v_cli.space import EmbeddingSpace, require_same_space

MINI = EmbeddingSpace("mini", 256, "unit")


def test_equal_spaces_may_meet() -> None:
    require_same_space(MINI, EmbeddingSpace("mini", 256, "unit"), "mix")


@pytest.mark.parametrize(
    "other",
    [
        EmbeddingSpace("swav", 256, "unit"),
        EmbeddingSpace("mini", 128, "unit"),
        EmbeddingSpace("mini", 256, "raw"),
    ],
)
def test_different_spaces_may_not_meet(other: EmbeddingSpace) -> None:
    with pytest.raises(SpaceError) as caught:
        require_same_space(MINI, other, "mix a sound with a photo")
    message = str(caught.value)
    assert str(MINI) in message
    assert str(other) in message
    assert "mix a sound with a photo" in message
    assert isinstance(caught.value, UsageError)


def test_the_family_of_a_space_is_its_name_without_the_version_of_its_weights() -> None:
    names = ("mini", "mini-2", "mini-1f3a09bc", "swav", "openclip-vit-h")
    families = [EmbeddingSpace(name, 8, "unit").family for name in names]
    assert families == ["mini", "mini", "mini", "swav", "openclip-vit-h"]
