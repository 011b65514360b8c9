"""Patient records: readers of every model of tables, what is foretold from what, probes of survival."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.data.catalog import find  # noqa: E402
from nextvec.data.ehr import Patient, Visit, read_ehr  # noqa: E402
from nextvec.data.synthetic.patients import simulate  # noqa: E402
from nextvec.evaluate.survival import concordance, fit_cox  # noqa: E402
from nextvec.methods.smb_structure import END, SPECIAL, UNKNOWN, SmbStructure  # noqa: E402
from nextvec.types import InputError, NotFoundError  # noqa: E402

PATIENTS = [
    Patient(
        "a",
        (Visit(0, ("dx:1", "rx:x"), ("rx:x",)), Visit(10, ("dx:2", "px:y", "rx:x"), ("px:y", "rx:x")), Visit(11, ())),
    ),
    Patient("b", (Visit(0, ("dx:2",)), Visit(400, ("dx:1", "dx:2")))),
]


def model(**changes: Any) -> SmbStructure:
    config = {"dim": 16, "layers": 1, "heads": 2, "length": 40, **changes}
    made = SmbStructure.start(PATIENTS, SmbStructure.Config(**config), seed=0).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim > 1 and not name.startswith("target"):
                parameter.mul_(4)
    return made


# ---------------------------------------------------------------- the method


def test_records_as_tokens() -> None:
    made = model()
    assert made.config.codes == ("dx:2", "dx:1", "rx:x", "px:y")
    dx2, dx1, rx, px = (len(SPECIAL) + i for i in range(4))
    gap = {"none": 2, "weeks": 4, "hours": 3, "more": 7}
    assert made.ids(PATIENTS[0]) == (
        [gap["none"], dx1, rx, END, gap["weeks"], dx2, px, rx, END, gap["hours"], END],
        3,
    )
    assert made.ids(PATIENTS[1])[0][3] == gap["more"]
    assert made.ids(Patient("c", (Visit(0, ("dx:new",)),)))[0] == [2, UNKNOWN, END]
    long = Patient("d", tuple(Visit(float(i), ("dx:1",) * 4) for i in range(20)))
    ids, kept = made.ids(long)
    assert kept == 6 and len(ids) == 36  # the last six fit


def test_what_is_done_next_is_the_mean_of_the_next_visits_treatments() -> None:
    made = model()
    batch = made.source(PATIENTS, batch=2, seed=0).batch(0)
    text = batch.ragged("text")
    done = made._done_next(text, 5)
    first = 0 if text.lengths[0] > text.lengths[1] else 2
    rows = made.backbone.embed(torch.arange(made.config.vocab))
    rx, px = len(SPECIAL) + 2, len(SPECIAL) + 3
    torch.testing.assert_close(done[first], (rows[px] + rows[rx]) / 2)
    for i in {0, 1, 2, 3, 4} - {first}:
        if i + 1 != first:  # the last of one patient looks at the first of the next, and is never asked
            assert not bool(done[i].any())
    assert not bool(model(action=False)._done_next(text, 5).any())


def test_later_states_are_the_copys_and_get_no_gradient() -> None:
    made = model(ahead=(1, 2))
    batch = made.source(PATIENTS, batch=2, seed=0).batch(0)
    with torch.no_grad():
        for parameter in made.target.parameters():
            parameter.add_(0.1)
    out = made(batch)
    text = batch.ragged("text")
    ends = (text.values == END).nonzero().flatten()
    torch.testing.assert_close(out["target"], made.target(text)[ends])
    assert not torch.allclose(out["target"], out["states"])
    assert (len(out["pred_1"]), len(out["pred_2"])) == (3, 1)
    term = made.objective()(out, batch)
    term.mean.backward()
    assert all(parameter.grad is None for parameter in made.target.parameters())
    assert "next_token" in term.logs and "next_embedding" in term.logs
    assert set(model(latent=0.0)(batch)) == {"states", "logits"}
    assert "logits" not in model(tokens=0.0)(batch)


def test_a_prediction_knows_what_came_before_and_what_is_done_and_nothing_else() -> None:
    made = model(ahead=(1,))
    base = Patient("a", (Visit(0, ("dx:1",)), Visit(9, ("dx:1", "rx:x"), ("rx:x",)), Visit(20, ("dx:2",))))

    def predictions(patient: Patient) -> torch.Tensor:
        batch = made.source([patient], batch=1, seed=0).batch(0)
        found: torch.Tensor = made(batch)["pred_1"]
        return found

    other_code = Patient("a", (base.visits[0], Visit(9, ("dx:2", "rx:x"), ("rx:x",)), base.visits[2]))
    other_treatment = Patient("a", (base.visits[0], Visit(9, ("dx:1", "px:y"), ("px:y",)), base.visits[2]))
    one = predictions(base)
    torch.testing.assert_close(predictions(other_code)[0], one[0])
    assert not torch.allclose(predictions(other_code)[1], one[1])
    assert not torch.allclose(predictions(other_treatment)[0], one[0])


def test_the_copy_moves_after_every_step() -> None:
    made = model(decay=0.75)
    before = [parameter.clone() for parameter in made.target.parameters()]
    made.after_step(1)
    for old, new, own in zip(before, made.target.parameters(), made.backbone.parameters(), strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * own)


def test_states_of_visits_do_not_depend_on_later_ones() -> None:
    made = model()
    whole = made.visit_states(PATIENTS)
    part = made.visit_states([Patient("a", PATIENTS[0].visits[:2])])
    assert [tuple(own.shape) for own in whole] == [(3, 16), (2, 16)]
    torch.testing.assert_close(whole[0][:2], part[0])


def test_runs_one_after_the_other(tmp_path: Path) -> None:
    from nextvec.training import fit, load_method

    data = tmp_path / "patients.jsonl"
    made = simulate(np.random.default_rng(0), 8, least=4, most=5)
    rows = [
        {"id": one.patient.id, "visits": [
            {"time": v.time, "codes": [c for c in v.codes if c not in v.treatments], "treatments": list(v.treatments)}
            for v in one.patient.visits
        ]}
        for one in made
    ]  # fmt: skip
    data.write_text("\n".join(map(json.dumps, rows)))
    assert read_ehr(data).patients[0] == made[0].patient
    shape = ["dim=16", "layers=1", "heads=2", "length=96", "steps=2", "batch=4"]
    fit("smb_structure", data, out=tmp_path / "one", set=[*shape, "latent=0"])
    fit("smb_structure", data, out=tmp_path / "two", set=[*shape, "tokens=0", f"start_from={tmp_path / 'one'}"])
    loaded = load_method(tmp_path / "two")
    assert isinstance(loaded, SmbStructure)
    assert len(loaded.visit_states([made[0].patient])[0]) == len(made[0].patient.visits)


def test_refusals() -> None:
    with pytest.raises(InputError, match="neither below 0 and one above"):
        model(tokens=0.0, latent=0.0)
    with pytest.raises(InputError, match="visits of at least 1"):
        model(ahead=(0,))
    with pytest.raises(InputError, match="patient 'e' has no visits"):
        model().columns([Patient("e", ())])


# ---------------------------------------------------------------- readers


def write(folder: Path, tables: dict[str, str], *, packed: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in tables.items():
        if packed:
            (folder / f"{name.upper()}.csv.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / f"{name}.csv").write_text(text)


OMOP = {
    "person": "person_id,year_of_birth\n1,1950\n2,1960\n3,1970\n",
    "visit_occurrence": "visit_occurrence_id,person_id,visit_start_date,visit_start_datetime\n"
    "11,1,2020-02-01,\n10,1,2020-01-01,2020-01-01 12:00:00\n20,2,,\n30,9,2020-01-01,\n31,3,2021-05-05,\n",
    "condition_occurrence": "visit_occurrence_id,condition_source_value,condition_concept_id\n"
    "10,E11,5\n11,,7\n99,I10,8\n10,,0\n",
    "drug_exposure": "visit_occurrence_id,drug_source_value,drug_concept_id\n11,  metformin  500 mg,9\n",
    "death": "person_id,death_date\n1,2020-03-01\n",
}


@pytest.mark.parametrize("packed", [False, True])
def test_omop_tables(tmp_path: Path, packed: bool) -> None:
    write(tmp_path / "omop", OMOP, packed=packed)
    found = read_ehr(tmp_path / "omop")
    one, three = found.patients
    assert [visit.codes for visit in one.visits] == [("dx:E11",), ("dx:7", "rx:metformin 500 mg")]
    assert one.visits[1].treatments == ("rx:metformin 500 mg",)
    assert one.visits[1].time == 30.5 and one.death == 59.5
    assert three.visits == (Visit(0.0, ()),) and three.death is None
    assert found.left_out == {
        "visits without a time": 1,
        "visits of a person whom no table knows": 1,
        "codes of a visit that no table knows": 1,
        "rows without a code": 1,
        "patients without a visit": 1,
    }
    with zipfile.ZipFile(tmp_path / "omop.zip", "w") as archive:
        for path in (tmp_path / "omop").iterdir():
            archive.write(path, f"inside/{path.name}")
    assert read_ehr(tmp_path / "omop.zip") == found


def test_mimic_and_eicu_tables(tmp_path: Path) -> None:
    write(
        tmp_path / "mimic",
        {
            "PATIENTS": "subject_id,dod\n7,2130-01-03 00:00:00\n",
            "ADMISSIONS": "subject_id,hadm_id,admittime\n7,71,2130-01-02 00:00:00\n7,70,2130-01-01 00:00:00\n",
            "DIAGNOSES_ICD": "subject_id,hadm_id,icd9_code\n7,70,4019\n",
            "PROCEDURES_ICD": "subject_id,hadm_id,icd9_code\n7,71,3605\n",
            "PRESCRIPTIONS": "subject_id,hadm_id,drug\n7,71,Aspirin\n7,71,Aspirin\n",
        },
    )
    (patient,) = read_ehr(tmp_path / "mimic").patients
    assert [visit.codes for visit in patient.visits] == [("dx:4019",), ("px:3605", "rx:Aspirin")]
    assert [visit.time for visit in patient.visits] == [0, 1] and patient.death == 2
    write(
        tmp_path / "eicu",
        {
            "patient": "patientunitstayid,uniquepid,hospitaldischargeyear,unitvisitnumber\n"
            "2,u,2015,2\n1,u,2015,1\n3,u,2014,5\n",
            "diagnosis": "patientunitstayid,diagnosisstring\n1,sepsis\n3,shock\n",
            "treatment": "patientunitstayid,treatmentstring\n2,fluids\n",
        },
    )
    (patient,) = read_ehr(tmp_path / "eicu").patients
    assert [visit.codes for visit in patient.visits] == [("dx:shock",), ("dx:sepsis",), ("px:fluids",)]


def test_records_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_ehr(tmp_path / "absent")
    write(tmp_path / "other", {"orders": "a,b\n1,2\n"})
    with pytest.raises(InputError, match=r"holds orders; expected those of OMOP: person"):
        read_ehr(tmp_path / "other")
    write(tmp_path / "empty", {"person": "person_id\n1\n", "visit_occurrence": "visit_occurrence_id,person_id\n"})
    with pytest.raises(InputError, match="looks like OMOP, but no patient"):
        read_ehr(tmp_path / "empty")
    write(tmp_path / "short", {"person": "name\nx\n", "visit_occurrence": "visit_occurrence_id,person_id\n"})
    with pytest.raises(InputError, match="lacks the column 'person_id', which OMOP has"):
        read_ehr(tmp_path / "short")
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(InputError, match="damaged table"):
        read_ehr(tmp_path / "bad.zip")
    for text, says in (
        ('{"id": 1, "visits": [{"codes": []}]}', "needs a 'time'"),
        ('{"id": 1, "visits": {}}', "expected a list"),
        ('{"id": 1, "visits": []}', "no patient with a visit"),
        ('{"id": 1, "visits": [{"time": 0, "codes": [""]}]}', "needs a 'time'"),
        ('{"id": 1, "visits": [{"time": 0}], "death": "soon"}', "'death' is 'soon'"),
    ):
        (tmp_path / "a.jsonl").write_text(text)
        with pytest.raises(InputError, match=says):
            read_ehr(tmp_path / "a.jsonl")


def test_unsorted_times_are_sorted(tmp_path: Path) -> None:
    visits = [{"time": 50, "codes": ["dx:b"]}, {"time": 20, "codes": ["dx:a"], "treatments": ["rx:c"]}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "x", "visits": visits, "death": 70}))
    (patient,) = read_ehr(tmp_path / "a.jsonl").patients
    assert patient == Patient("x", (Visit(0, ("dx:a", "rx:c"), ("rx:c",)), Visit(30, ("dx:b",))), 50)


@pytest.mark.parametrize(
    ("name", "inside", "patients", "visits"),
    [
        ("pyhealth_ehr_demo", "core/mimic3demo", 100, 129),
        ("pyhealth_ehr_demo", "core/mimic4demo", 13, 24),
        ("pyhealth_ehr_demo", "core/eicudemo", 100, 174),
        ("pyhealth_ehr_demo", "omop", 12, 68),
        ("eunomia", "Synthea27Nj/Synthea27Nj_5.4.zip", 28, 1791),
    ],
)
def test_real_records(name: str, inside: str, patients: int, visits: int) -> None:
    found = find(name)
    if found is None:
        pytest.skip(f"the data set {name} is not here: set NEXTVEC_DATA")
    records = read_ehr(found[1] / inside)
    assert len(records.patients) == patients
    assert sum(len(patient.visits) for patient in records.patients) == visits


def test_made_patients_are_what_they_say() -> None:
    made = simulate(np.random.default_rng(0), 300)
    states = np.concatenate([one.states for one in made])
    events = np.concatenate([one.events for one in made])
    assert 0.02 < events.mean() < 0.5
    # The event is likelier where the state is: a linear map of the true states orders them.
    weights = np.linalg.lstsq(states, events.astype(float), rcond=None)[0]
    score = states @ weights
    assert (score[events][:, None] > score[~events][None, :2000]).mean() > 0.75
    assert all(
        ("dx:event" in v.codes) == e for one in made for v, e in zip(one.patient.visits, one.events, strict=True)
    )


# ---------------------------------------------------------------- survival


def test_cox_by_hand() -> None:
    """The gradient of the penalised partial likelihood is 0 at what is found."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    time = np.round(rng.exponential(np.exp(-x @ [1.0, -0.5, 0.0])), 1)  # with ties
    event = rng.random(60) < 0.7
    probe = fit_cox(x, time, event, alpha=0.1)
    z = (x - x.mean(0)) / x.std(0)

    def loss(w: np.ndarray) -> float:
        parts = [np.log(np.exp(z[time >= time[i]] @ w).sum()) - z[i] @ w for i in np.flatnonzero(event)]
        return float(np.mean(parts) + 0.05 * w @ w)

    for k in range(3):
        step = np.eye(3)[k] * 1e-5
        assert abs(loss(probe.weights + step) - loss(probe.weights - step)) / 2e-5 < 1e-4
    assert probe.weights[0] > 0.4 > abs(probe.weights[2]) and probe.weights[1] < -0.1
    assert concordance(time, event, probe.risk(x)) > 0.7


def test_concordance_by_hand() -> None:
    time, event = [1.0, 2.0, 3.0, 3.0], [True, False, True, False]
    # Known: 1 before all others; 3 (event) before 3 (still unharmed).
    assert concordance(time, event, [4, 3, 2, 1]) == 1.0
    assert concordance(time, event, [1, 2, 3, 4]) == 0.0
    assert concordance(time, event, [2, 2, 3, 1]) == pytest.approx((0.5 + 0 + 1 + 1) / 4)
    with pytest.raises(InputError, match="nothing happened"):
        concordance(time, [False] * 4, [1, 2, 3, 4])
    with pytest.raises(InputError, match="no two people"):
        concordance([1.0, 2.0], [False, True], [1, 2])
