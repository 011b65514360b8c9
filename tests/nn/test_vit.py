"""The vision transformer: how images are cut, what positions do, and what is refused."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the vision transformer needs torch: pip install 'nextvec[hf]'")

from nextvec.nn.backbones.vit import ViT, ViTConfig  # noqa: E402
from nextvec.types import InputError  # noqa: E402


def model(**changes: int) -> ViT:
    torch.manual_seed(0)
    return ViT(ViTConfig(**{"image": 8, "patch": 4, "dim": 16, "layers": 2, **changes})).double().eval()


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_shapes_and_states() -> None:
    vit, x = model(), images(3, 3, 8, 8)
    assert vit(x).shape == (3, 4, 16)
    assert len(vit(x, all_states=True)) == 3
    torch.testing.assert_close(vit.embed(x), vit(x).mean(1))


def test_patches_are_squares_of_the_image_row_by_row() -> None:
    vit, x = model(), images(2, 3, 8, 8)
    start = vit(x, all_states=True)[0]
    for number, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        square = x[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].reshape(2, -1)
        expected = vit.patches(square) + vit.row_table[row] + vit.column_table[column]
        torch.testing.assert_close(start[:, number], expected)


def test_images_do_not_see_each_other() -> None:
    vit, x = model(), images(3, 3, 8, 8)
    torch.testing.assert_close(vit(x)[1:2], vit(x[1:2]))


def test_patches_are_a_set_but_for_their_positions() -> None:
    vit, x = model(), images(1, 3, 8, 8)
    swapped = torch.cat([x[..., 4:], x[..., :4]], dim=-1)  # left and right columns of patches change places
    assert not torch.allclose(vit(swapped), vit(x)[:, [1, 0, 3, 2]])
    with torch.no_grad():
        vit.row_table.zero_()
        vit.column_table.zero_()
    torch.testing.assert_close(vit(swapped), vit(x)[:, [1, 0, 3, 2]])


def test_a_smaller_image_uses_the_first_positions() -> None:
    vit, x = model(), images(1, 3, 8, 4)
    assert vit(x).shape == (1, 2, 16)
    start = vit(x, all_states=True)[0]
    expected = vit.patches(x[:, :, 4:].reshape(1, -1)) + vit.row_table[1] + vit.column_table[0]
    torch.testing.assert_close(start[:, 1], expected)


@pytest.mark.parametrize("shape", [(1, 3, 8, 6), (1, 3, 12, 8), (1, 1, 8, 8), (3, 8, 8), (0, 3, 8, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="multiples of 4 up to 8"):
        model()(images(*shape))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="whole patches"):
        ViTConfig(image=10, patch=4)
