"""M-CNN: phenotypes, mechanisms and concentration-response curves from whole fields (Godinez et al. 2017)."""
