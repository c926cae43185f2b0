#!/usr/bin/env bash
# Collect the wheels that tests/gpu needs on a machine without network: wheels.sh [OPTIONS] DIR PYTHON_VERSION
#
#   --have A,B    leave out packages that the machine has
#   --with A,B    take further ones, such as pyarrow and scipy
#   --ray         take what the whole project needs instead, Ray and MLflow included, as an archive in parts of
#                 at most 60 MiB: part-00, part-01, ... and their SHA256SUMS
#
# PyTorch and what it brings are never taken. Set PYTHON to the interpreter whose pip does the work.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
limit=$((64 << 20))
part=$((60 << 20))
alone=(azula heavyball)  # they ask for torch, or for what the lane does not use
wanted=(einops tqdm opt-einsum numpy pydantic universal_pathlib fsspec filelock h5py safetensors pyyaml tyro pytest)
have=() ray=

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
while [[ ${1:-} == --* ]]; do
	case $1 in
	--have) IFS=, read -ra have <<<"${2:?}"; shift 2 ;;
	--with) IFS=, read -ra more <<<"${2:?}"; wanted+=("${more[@]}"); shift 2 ;;
	--ray) ray=1; shift ;;
	*) usage ;;
	esac
done
[[ $# == 2 ]] || usage
mkdir -p "$1"
folder=$(cd "$1" && pwd)
version=$2
if [[ -n $(ls -A "$folder") ]]; then
	echo "wheels.sh: $folder is not empty; name a new folder" >&2
	exit 1
fi

# The version of a package that pyproject.toml asks for; its name alone where it asks for none.
requirement() {
	local line
	line=$(grep -oE "^  \"$1[][a-z,]*[~<>=][^\"]*\"" "$root/pyproject.toml" | head -n 1 | tr -d '" ' || true)
	echo "${line:-$1}"
}

# Every name of the project's own dependencies, but for those of PyTorch and those that are taken alone.
of_the_project() {
	sed -n '/^dependencies = \[/,/^\]/p' "$root/pyproject.toml" | grep -oE '"[^"]+"' | tr -d '"' \
		| grep -vE '^(torch|torchvision|azula|heavyball)[^a-z]'
}

collect() {
	local platforms=()
	for name in manylinux_2_{34,31,28,27,26,24,17,12,5}_x86_64 manylinux{2014,2010,1}_x86_64; do
		platforms+=(--platform "$name")
	done
	"$python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: --implementation cp \
		--python-version "$version" "${platforms[@]}" --dest "$folder" "$@"
}

bytes() { du --bytes --summarize "$@" | awk '{ sum += $1 } END { print sum }'; }
mebibytes() { awk -v n="$1" 'BEGIN { printf "%.1f MiB", n / 1048576 }'; }

mapfile -t names < <(for name in "${alone[@]}"; do requirement "$name"; done)
collect --no-deps "${names[@]}"
if [[ $ray ]]; then
	mapfile -t names < <(of_the_project; requirement pytest; echo opt-einsum; echo tqdm)
else
	mapfile -t names < <(for name in "${wanted[@]}"; do requirement "$name"; done)
fi
collect "${names[@]}"
for name in "${have[@]}"; do
	find "$folder" -iname "${name//[-_.]/_}-*.whl" -delete
done
if brought=$(find "$folder" -name '*.whl' | grep -oE '/(torch|nvidia|triton)[^/]*$'); then
	echo "wheels.sh: pip took ${brought//$'\n'/ }, which a package must have newly required" >&2
	exit 1
fi

if [[ $ray ]]; then
	(cd "$folder" && tar --create -- *.whl | split --numeric-suffixes --bytes "$part" - part- \
		&& rm -- *.whl && sha256sum part-* >SHA256SUMS)
	echo "$folder: $(find "$folder" -name 'part-*' | wc -l) parts, $(mebibytes "$(bytes "$folder")")"
	exit
fi
tree=$(cd "$root" && git ls-files -z | xargs -0 du --bytes --total | awk '/\ttotal$/ { sum += $1 } END { print sum }')
sum=$((tree + $(bytes "$folder")))
echo "$folder: $(find "$folder" -name '*.whl' | wc -l) wheels; with the tree $(mebibytes "$sum")"
if ((sum > limit)); then
	echo "wheels.sh: that is more than $(mebibytes $limit); leave out what the machine has with --have" >&2
	exit 1
fi
