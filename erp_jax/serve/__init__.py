"""A saved router in use: an encoder in front of a policy."""

from erp_jax.serve import router as _router

Router = _router.Router
