"""AWS as code: the ground that `k8s/overlays/prod` stands on, with AWS's own stores in the place of the operators'.

`sizes` and `costs` are arithmetic and need nothing; `app` and the stacks need the AWS CDK, which `.ci/deploy-tools`
installs in an environment of its own.
"""
