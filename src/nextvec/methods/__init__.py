"""One file per published method; what this folder holds is what there is (see CONTRIBUTING)."""
