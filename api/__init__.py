"""The Python interface: what `import diffusion_priors as dp` offers. Thin over the other rooms, and without Hydra."""
