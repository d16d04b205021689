import subprocess

from mri_jax.study.provenance import commit_of


def test_the_commit_is_that_of_the_packages_own_checkout(tmp_path):
    package, installed = tmp_path / "package", tmp_path / "venv" / "package"
    for folder in (package, installed):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("", encoding="utf-8")

    def git(*arguments):
        person = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *person, *arguments]
        return subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout

    assert commit_of(package) is None
    git("init")
    assert commit_of(package) is None
    git("add", "package")
    git("commit", "-m", "all of it")
    git("tag", "-a", "v1", "-m", "a tag")
    commit = git("rev-parse", "HEAD").strip()
    assert commit_of(package) == commit
    assert commit_of(installed) is None
    (package / "__init__.py").write_text("x = 1", encoding="utf-8")
    assert commit_of(package) == f"{commit}-dirty"
